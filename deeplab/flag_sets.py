"""Groups of flags, and the options made from them.

Each group is a pair of functions: one defines flags on absl's FlagValues, one
makes options from their values. Nothing here needs TensorFlow.
"""
import functools
import os

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError

flags.disclaim_key_flags()

# --- Building blocks -------------------------------------------------------


def _define(flag_values, kind, name, default, *args):
  """Defines one flag; kind is the end of absl's DEFINE_ function."""
  getattr(flags, 'DEFINE_' + kind)(
      name, default, *args, flag_values=flag_values)


def _require(flag_values, *names):
  """Refuses a command line without one of these flags.

  Raises:
    InputError: naming the first that is missing.
  """
  for name in names:
    if not flag_values[name].value:
      raise InputError('--{} is required'.format(name))


def _integers(flag_values, name):
  """Returns a list flag's value as a tuple of int.

  Raises:
    InputError: where an element is no integer.
  """
  try:
    return tuple(int(element) for element in flag_values[name].value or ())
  except ValueError:
    raise InputError('--{}={}: expected integers, separated by commas'.format(
        name, ','.join(flag_values[name].value)))


def _size(flag_values, name):
  """Returns a list flag's value as (height, width).

  Raises:
    InputError: where it is not two positive integers.
  """
  given = ','.join(str(side) for side in flag_values[name].value)
  try:
    height, width = _integers(flag_values, name)
  except (InputError, ValueError):
    height = width = 0
  if min(height, width) < 1:
    raise InputError('--{}={}: expected HEIGHT,WIDTH, for example '
                     '512,512'.format(name, given))
  return height, width


def _given(flag_values, names):
  """Returns a dict of the values of flags, which are named like fields."""
  return {name: flag_values[name].value for name in names}


# --- Model -----------------------------------------------------------------

_MODEL_FIELDS_AS_FLAGS = (
    'output_stride', 'depth_multiplier', 'divisible_by', 'aspp_convs_filters',
    'aspp_with_concat_projection', 'aspp_with_separable_conv',
    'decoder_filters', 'decoder_use_separable_conv', 'decoder_use_sum_merge',
    'decoder_output_is_logits', 'batch_norm_decay', 'use_bounded_activation',
    'prediction_with_upsampled_logits')


def define_model_flags(flag_values):
  """Defines the flags that shape the network, with options.ModelOptions."""
  default = options.ModelOptions()
  define = functools.partial(_define, flag_values)
  define('integer', 'output_stride', default.output_stride,
         'Input size over the size of the last map: 8, 16 or 32.')
  define('list', 'decoder_output_stride', None,
         'Strides at which the decoder refines, such as 4; none: no decoder.')
  define('multi_integer', 'atrous_rates', None,
         'Rates of the atrous branches of ASPP; none, as published.')
  define('float', 'depth_multiplier', default.depth_multiplier,
         'Relative width of the backbone.')
  define('integer', 'divisible_by', default.divisible_by,
         'Channel counts of the backbone are multiples of this; not given: 8 '
         'at --depth_multiplier=1, else 1.')
  define('integer', 'aspp_convs_filters', default.aspp_convs_filters,
         'Channels of the branches of ASPP.')
  define('boolean', 'aspp_with_concat_projection',
         default.aspp_with_concat_projection,
         'Project the joined branches of ASPP by a 1x1 convolution.')
  define('boolean', 'aspp_with_separable_conv',
         default.aspp_with_separable_conv,
         'Use separable convolutions in the atrous branches of ASPP.')
  define('list', 'image_pooling_crop_size', None,
         'HEIGHT,WIDTH that the pooling of ASPP covers, in input pixels; not '
         'given: the crop size.')
  define('list', 'image_pooling_stride', ['1', '1'],
         'Strides of the pooling of ASPP, in cells of the map.')
  define('integer', 'decoder_filters', default.decoder_filters,
         'Channels of the decoder.')
  define('boolean', 'decoder_use_separable_conv',
         default.decoder_use_separable_conv,
         'Use separable convolutions in the decoder.')
  define('boolean', 'decoder_use_sum_merge', default.decoder_use_sum_merge,
         'Merge maps in the decoder by sum, not by concatenation.')
  define('boolean', 'decoder_output_is_logits',
         default.decoder_output_is_logits,
         "Take the decoder's output as the logits.")
  define('float', 'batch_norm_decay', default.batch_norm_decay,
         'Decay of the moving averages of batch norm after the backbone.')
  define('boolean', 'use_bounded_activation', default.use_bounded_activation,
         'Use ReLU6, not ReLU, after the backbone.')
  define('boolean', 'prediction_with_upsampled_logits',
         default.prediction_with_upsampled_logits,
         'Resize the logits before the arg max, not the labels after it.')


def model_options(flag_values, *, crop_size,
                  num_classes=contract.NUM_CLASSES):
  """Makes options.ModelOptions from model flags.

  Args:
    flag_values: parsed FlagValues.
    crop_size: (height, width).
    num_classes: int.
  """
  pooled_size = None
  if flag_values.image_pooling_crop_size:
    pooled_size = _size(flag_values, 'image_pooling_crop_size')
  return options.ModelOptions(
      crop_size=crop_size, num_classes=num_classes,
      decoder_output_stride=_integers(flag_values, 'decoder_output_stride'),
      atrous_rates=tuple(flag_values.atrous_rates or ()),
      image_pooling_crop_size=pooled_size,
      image_pooling_stride=_size(flag_values, 'image_pooling_stride'),
      **_given(flag_values, _MODEL_FIELDS_AS_FLAGS)).validate()


def _define_quantization_flag(flag_values):
  _define(flag_values, 'integer', 'quantize_delay_step', -1,
          'Step from which values are fake-quantized to 8 bits; in '
          'evaluation and export, 0 or more says that the checkpoint was '
          'trained so. Below 0: float.')


# --- Images ----------------------------------------------------------------

_RESIZE_FIELDS = ('min_resize_value', 'max_resize_value', 'resize_factor')


def define_resize_flags(flag_values):
  """Defines how images are resized before they are padded to the crop."""
  define = functools.partial(_define, flag_values)
  define('integer', 'min_resize_value', None,
         'Wanted length of the shorter side, in pixels; none: no resizing.')
  define('integer', 'max_resize_value', None,
         'Largest length of the longer side, in pixels.')
  define('integer', 'resize_factor', None,
         'Resized sides are multiples of this, plus one.')


def define_input_flags(flag_values, *, split_flag, split, batch_flag,
                       batch_size, crop_flag):
  """Defines where images come from: folder, split, batch, crop, resizing."""
  define = functools.partial(_define, flag_values)
  define('string', 'dataset_dir', None, 'Folder with the TFRecord shards.')
  define('enum', split_flag, split, list(contract.SPLITS), 'Split to read.')
  define('integer', batch_flag, batch_size, 'Images in a batch.')
  # Deviates: 513 in the reference, with which its own evaluation fails.
  define('list', crop_flag, ['512', '512'],
         'HEIGHT,WIDTH of the input of the network, in pixels.')
  define_resize_flags(flag_values)


# --- Training --------------------------------------------------------------

_TRAIN_FIELDS = tuple(
    field for field in options.TrainOptions._fields if field != 'label_weights')
_SCALE_FIELDS = (
    'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size')


def define_train_flags(flag_values):
  """Defines the flags of train.py."""
  define_input_flags(
      flag_values, split_flag='train_split', split='train',
      batch_flag='train_batch_size', batch_size=8, crop_flag='train_crop_size')
  define = functools.partial(_define, flag_values)
  define('enum', 'dataset', 'ade20k', ['ade20k'],
         'Name of the data set, which sets classes and the ignored label.')
  define('float', 'min_scale_factor', 0.5,
         'Least factor of the random scaling.')
  define('float', 'max_scale_factor', 2.0,
         'Largest factor of the random scaling.')
  define('float', 'scale_factor_step_size', 0.25,
         'Step between factors; 0: any factor in the range.')
  _define_run_flags(define)
  _define_optimizer_flags(define)
  define_model_flags(flag_values)
  _define_quantization_flag(flag_values)


def _define_run_flags(define):
  """Defines where a training run starts, ends, and writes."""
  default = options.TrainOptions(train_logdir='')
  define('string', 'train_logdir', None,
         'Folder for checkpoints and summaries.')
  define('integer', 'training_number_of_steps',
         default.training_number_of_steps, 'Global step to stop at.')
  define('string', 'tf_initial_checkpoint', None,
         'Checkpoint to start from: a prefix, any of its files, or a folder.')
  define('boolean', 'initialize_last_layer', default.initialize_last_layer,
         'Restore the last layers from that checkpoint too.')
  define('boolean', 'last_layers_contain_logits_only',
         default.last_layers_contain_logits_only,
         'Let "last layers" mean the logits alone.')
  define('integer', 'log_steps', default.log_steps,
         'Steps between two lines of the log.')
  define('integer', 'save_interval_secs', default.save_interval_secs,
         'Seconds between checkpoints.')
  define('integer', 'save_summaries_secs', default.save_summaries_secs,
         'Seconds between summaries.')
  define('boolean', 'save_summaries_images', default.save_summaries_images,
         'Put input, label and prediction into the summaries.')
  define('string', 'profile_logdir', None,
         'Folder for timelines of a few steps.')
  define('integer', 'seed', None,
         'Seed of the initial values, the order of images, augmentation and '
         'dropout; none: different in every run.')


def _define_optimizer_flags(define):
  """Defines the optimizer, its learning rate, and the loss."""
  default = options.TrainOptions(train_logdir='')
  define('enum', 'optimizer', default.optimizer, ['momentum', 'adam'],
         'Which optimizer.')
  define('enum', 'learning_policy', default.learning_policy, ['poly', 'step'],
         'How the learning rate of momentum falls.')
  for name, text in (
      ('momentum', 'Momentum.'),
      ('adam_learning_rate', 'Constant learning rate of Adam.'),
      ('adam_epsilon', 'Epsilon of Adam.'),
      ('base_learning_rate', 'First learning rate of momentum.'),
      ('end_learning_rate', 'Last learning rate of the poly policy.'),
      ('learning_power', 'Power of the poly policy.'),
      ('decay_steps', 'Steps of the poly policy; 0: the whole run.'),
      ('learning_rate_decay_factor', 'Factor of the step policy.'),
      ('slow_start_learning_rate', 'Learning rate of the slow start.'),
      ('last_layer_gradient_multiplier',
       'Factor of the gradients of the last layers.'),
      ('weight_decay', 'Factor of the L2 regularization.')):
    define('float', name, getattr(default, name), text)
  define('integer', 'learning_rate_decay_step',
         default.learning_rate_decay_step, 'Steps of the step policy.')
  define('integer', 'slow_start_step', default.slow_start_step,
         'Steps with the learning rate of the slow start.')
  define('boolean', 'fine_tune_batch_norm', default.fine_tune_batch_norm,
         'Run batch norm in training mode.')
  define('multi_float', 'label_weights', None,
         'Loss weight of all classes, or, given 32 times, of each.')


def train_options(flag_values):
  """Makes the keyword arguments of training.train from train flags."""
  _require(flag_values, 'train_logdir', 'dataset_dir')
  crop_size = _size(flag_values, 'train_crop_size')
  return {
      'dataset_options': options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir,
          split=flag_values.train_split,
          batch_size=flag_values.train_batch_size,
          seed=flag_values.seed).validate(),
      'preprocess_options': options.PreprocessOptions(
          crop_size=crop_size,
          **_given(flag_values, _RESIZE_FIELDS + _SCALE_FIELDS)).validate(),
      'model_options': model_options(flag_values, crop_size=crop_size),
      'options': options.TrainOptions(
          label_weights=tuple(flag_values.label_weights or ()),
          **_given(flag_values, _TRAIN_FIELDS)),
  }


# --- Evaluation ------------------------------------------------------------


def _define_eval_flags(flag_values):
  """Defines what eval.py and eval_pb.py share."""
  define_input_flags(
      flag_values, split_flag='eval_split', split='val',
      batch_flag='eval_batch_size', batch_size=1, crop_flag='eval_crop_size')
  define = functools.partial(_define, flag_values)
  define('string', 'eval_logdir', None, 'Folder for TensorBoard events.')
  _define_report_flags(define)


def _define_report_flags(define):
  """Defines what becomes of the scores, in every evaluation."""
  define('string', 'report_json', None,
         'File for the report: scores, confusion matrix, circumstances.')
  define('string', 'vis_dir', None,
         'Folder for a picture of images, labels and predictions.')
  define('integer', 'vis_images', options.EvalOptions().vis_images,
         'Number of images on that picture.')


def _eval_options(flag_values):
  """Makes the keyword arguments that both evaluations share."""
  _require(flag_values, 'dataset_dir')
  return {
      'dataset_options': options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir, split=flag_values.eval_split,
          batch_size=flag_values.eval_batch_size).validate(),
      'preprocess_options': options.PreprocessOptions(
          crop_size=_size(flag_values, 'eval_crop_size'),
          **_given(flag_values, _RESIZE_FIELDS)).validate(),
      'options': options.EvalOptions(
          **_given(flag_values, options.EvalOptions._fields)),
  }


def define_eval_flags(flag_values):
  """Defines the flags of eval.py."""
  _define_eval_flags(flag_values)
  define = functools.partial(_define, flag_values)
  define('string', 'checkpoint_dir', None,
         'Folder to watch for checkpoints; or one checkpoint.')
  define('integer', 'eval_interval_secs', 300,
         'Least number of seconds between two evaluations.')
  define('integer', 'max_number_of_evaluations', 0,
         'Evaluations to stop after; 0: never.')
  define('integer', 'eval_timeout_secs', None,
         'Seconds without a new checkpoint to stop after; none: never.')
  define_model_flags(flag_values)
  _define_quantization_flag(flag_values)


def eval_options(flag_values):
  """Makes the keyword arguments of evaluation.evaluate_checkpoints."""
  _require(flag_values, 'checkpoint_dir')
  shared = _eval_options(flag_values)
  return dict(
      shared, checkpoint_dir=flag_values.checkpoint_dir,
      model_options=model_options(
          flag_values, crop_size=shared['preprocess_options'].crop_size),
      with_quantization=flag_values.quantize_delay_step >= 0,
      interval_secs=flag_values.eval_interval_secs,
      max_evaluations=flag_values.max_number_of_evaluations,
      timeout_secs=flag_values.eval_timeout_secs)


def define_eval_pb_flags(flag_values):
  """Defines the flags of eval_pb.py."""
  _define_eval_flags(flag_values)
  define = functools.partial(_define, flag_values)
  define('string', 'pb', None, 'Frozen graph to evaluate.')
  define('string', 'input_node', contract.INPUT_NODE,
         'Node that gets images in [-1, 1].')
  define('string', 'output_node', contract.OUTPUT_NODE,
         'Node that gives labels.')


def eval_pb_options(flag_values):
  """Makes the keyword arguments of evaluation.evaluate_frozen_graph."""
  _require(flag_values, 'pb')
  return dict(
      _eval_options(flag_values), path=flag_values.pb,
      input_node=flag_values.input_node, output_node=flag_values.output_node)


# --- Export ----------------------------------------------------------------


def define_export_flags(flag_values):
  """Defines the flags of export_model.py."""
  define = functools.partial(_define, flag_values)
  define('string', 'checkpoint_path', None,
         'Folder with checkpoints, of which the newest is taken; or one.')
  define('string', 'export_path', None,
         'Folder for freeze.pb; or a file name that ends in .pb.')
  # Deviates: 21 classes and stride 8 in the reference, not this model's.
  define('integer', 'num_classes', contract.NUM_CLASSES,
         'Number of classes, the ignored class among them.')
  define('list', 'train_crop_size', None,
         'HEIGHT,WIDTH of the input of the graph, in pixels.')
  define('multi_integer', 'crop_size', [512, 512],
         'The same, given twice: height, then width.')
  define('multi_float', 'inference_scales', [1.0],
         'Scales of the input whose probabilities are averaged.')
  define('boolean', 'add_flipped_images', False,
         'Average the probabilities of mirrored images too.')
  define('boolean', 'save_inference_graph', False,
         'Write the graph without weights too, as text.')
  define_resize_flags(flag_values)
  define_model_flags(flag_values)
  _define_quantization_flag(flag_values)


def export_options(flag_values):
  """Makes the keyword arguments of export.export from export flags."""
  _require(flag_values, 'checkpoint_path', 'export_path')
  crop_size = _size(flag_values, 'crop_size')
  if flag_values.train_crop_size:
    wanted = _size(flag_values, 'train_crop_size')
    if flag_values['crop_size'].present and wanted != crop_size:
      raise InputError(
          '--train_crop_size={},{} and --crop_size={},{}: expected the same, '
          'or one of them'.format(*(wanted + crop_size)))
    crop_size = wanted
  return {
      'checkpoint_path': flag_values.checkpoint_path,
      'model_options': model_options(
          flag_values, crop_size=crop_size,
          num_classes=flag_values.num_classes),
      'options': options.ExportOptions(
          export_path=flag_values.export_path,
          inference_scales=tuple(flag_values.inference_scales),
          add_flipped_images=flag_values.add_flipped_images,
          save_inference_graph=flag_values.save_inference_graph,
          with_quantization=flag_values.quantize_delay_step >= 0,
          preprocessing=options.PreprocessOptions(
              crop_size=crop_size,
              **_given(flag_values, _RESIZE_FIELDS)).validate()).validate(),
  }


# --- Data ------------------------------------------------------------------


def define_build_flags(flag_values):
  """Defines the flags of build_ade20k_data.py."""
  source = './ADE20K/ADEChallengeData2016'
  for split, folder in (('train', 'training'), ('val', 'validation')):
    flags.DEFINE_string(
        '{}_image_folder'.format(split), '{}/images/{}'.format(source, folder),
        'Folder with the {} images.'.format(folder), flag_values=flag_values)
    flags.DEFINE_string(
        '{}_image_label_folder'.format(split),
        '{}/annotations/{}'.format(source, folder),
        'Folder with the {} labels.'.format(folder), flag_values=flag_values)
  flags.DEFINE_string(
      'output_dir', './ADE20K/tfrecord', 'Folder for the TFRecord shards.',
      flag_values=flag_values)
  # Deviates: the reference's default, png, is not the format of ADE20K, and
  # was written into the records without being looked at.
  flags.DEFINE_enum(
      'image_format', None, ['jpg', 'jpeg', 'png'],
      'Refuse images of another format. Not given: accept all.',
      flag_values=flag_values)
  flags.DEFINE_enum(
      'label_format', 'png', ['png'],
      'Format of the labels; kept for compatibility, as there is only one.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'shuffle_seed', 0, 'Seed of the order in which pairs are stored.',
      flag_values=flag_values)
  flags.DEFINE_boolean(
      'skip_bad', False,
      'Leave out pairs that cannot be used, instead of refusing them all.',
      flag_values=flag_values)
  flags.DEFINE_boolean(
      'palette_labels', False,
      'Take the indices of palette labels as class ids.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'num_workers', 0,
      'Threads that check pairs; 0: one for each processor.',
      flag_values=flag_values)


def build_options(flag_values):
  """Makes a list of options.BuildOptions, one a split, from build flags.

  A split is left out where none of its flags is given, its default image
  folder does not exist, and the other split was asked for by flags.
  """
  folders = {split: ['{}_image_folder'.format(split),
                     '{}_image_label_folder'.format(split)]
             for split in contract.SPLITS}
  given = {split for split, names in folders.items()
           if any(flag_values[name].present for name in names)}
  wanted = [split for split, names in folders.items()
            if not given or split in given or
            os.path.isdir(flag_values[names[0]].value)]
  return [
      options.BuildOptions(
          split=split,
          image_folder=flag_values[folders[split][0]].value,
          label_folder=flag_values[folders[split][1]].value,
          output_dir=flag_values.output_dir,
          image_format=flag_values.image_format,
          palette_labels=flag_values.palette_labels,
          skip_bad=flag_values.skip_bad,
          shuffle_seed=flag_values.shuffle_seed,
          num_workers=flag_values.num_workers).validate()
      for split in wanted]


def define_synthetic_flags(flag_values):
  """Defines the flags of scripts/make_synthetic_ade20k.py."""
  flags.DEFINE_string(
      'output_dir', './synthetic',
      'Folder in which ADEChallengeData2016 is made.', flag_values=flag_values)
  flags.DEFINE_integer(
      'train_images', 40, 'Number of training pairs.', flag_values=flag_values)
  flags.DEFINE_integer(
      'val_images', 8, 'Number of validation pairs.', flag_values=flag_values)
  flags.DEFINE_integer(
      'size', 320, 'Longer side of the images, in pixels.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'seed', 0, 'Seed; the same seed makes the same pictures.',
      upper_bound=2 ** 32 - 1, flag_values=flag_values)


# --- TFLite conversion -----------------------------------------------------


def _define_conversion_flags(flag_values):
  """Defines what both conversions share."""
  define = functools.partial(_define, flag_values)
  define('string', 'graph_def', None,
         'Frozen graph to convert, as export_model.py writes it.')
  define('string', 'out_tflite', None, 'TFLite file to write.')
  define('string', 'input_node', contract.INPUT_NODE,
         'Node that gets images in [-1, 1].')
  define('string', 'output_node', contract.OUTPUT_NODE,
         'Node that gives labels.')


_CONVERSION_FIELDS = ('graph_def', 'out_tflite', 'input_node', 'output_node')


def define_post_training_quant_flags(flag_values):
  """Defines the flags of post_training_quant.py."""
  _define_conversion_flags(flag_values)
  define = functools.partial(_define, flag_values)
  define('string', 'dataset_dir', None,
         'Folder with the calibration images img_N.png, as '
         'gen_preprocessed_data.py writes it.')
  define('enum', 'input_type', None, ['float', 'uint8'],
         'Type of the input: float32 in [-1, 1], or pixels as uint8. '
         'Required.')
  define('integer', 'sample_num', contract.CALIBRATION_IMAGES,
         'Number of calibration images; the first ones are taken.')


def post_training_quant_options(flag_values):
  """Makes the keyword arguments of tflite.post_training_quantize."""
  _require(flag_values, 'dataset_dir', 'graph_def', 'out_tflite')
  if not flag_values.input_type:
    raise InputError('--input_type is required: float (float32 in [-1, 1]) or '
                     'uint8 (pixels, as published)')
  return _given(flag_values, _CONVERSION_FIELDS + (
      'dataset_dir', 'input_type', 'sample_num'))


def define_convert_tflite_flags(flag_values):
  """Defines the flags of scripts/convert_tflite.py."""
  _define_conversion_flags(flag_values)
  define = functools.partial(_define, flag_values)
  define('enum', 'mode', None, ['float', 'qat'],
         'float: no quantization; qat: of a quantization-aware graph. '
         'Required.')
  define('list', 'quantized_input_stats',
         ['{:g}'.format(value) for value in contract.QUANTIZED_INPUT_STATS],
         'MEAN,DEVIATION of the uint8 input of --mode=qat, whose real value '
         'is (pixel - MEAN) / DEVIATION.')


def convert_tflite_options(flag_values):
  """Makes the keyword arguments of tflite.convert."""
  _require(flag_values, 'graph_def', 'out_tflite')
  if not flag_values.mode:
    raise InputError('--mode is required: float, or qat for a graph exported '
                     'with --quantize_delay_step=0')
  flag = '--quantized_input_stats={}'.format(
      ','.join(flag_values.quantized_input_stats))
  if flag_values['quantized_input_stats'].present and (
      flag_values.mode != 'qat'):
    raise InputError(flag + ': has no effect with --mode={}; drop it'.format(
        flag_values.mode))
  try:
    mean, deviation = map(float, flag_values.quantized_input_stats)
  except ValueError:
    mean, deviation = 0.0, 0.0
  if not deviation > 0:
    raise InputError(flag + ': expected MEAN,DEVIATION with a deviation above '
                     '0, for example 128,128')
  return dict(_given(flag_values, _CONVERSION_FIELDS + ('mode',)),
              quantized_input_stats=(mean, deviation))


# --- Rebuilding ------------------------------------------------------------


def define_rebuild_flags(flag_values):
  """Defines the flags of scripts/rebuild_checkpoint.py."""
  define = functools.partial(_define, flag_values)
  define('string', 'tflite', None, 'TFLite file to rebuild from.')
  define('string', 'output_dir', None,
         'Folder for the checkpoint; must not hold one already.')
  define('integer', 'batch_norm_seed', None,
         'Draw batch norm from this seed and let the weights make up for it, '
         'to exercise folding; not given: batch norm is the identity.')


def rebuild_options(flag_values):
  """Makes the keyword arguments of rebuild.rebuild."""
  _require(flag_values, 'tflite', 'output_dir')
  return _given(flag_values, ('tflite', 'output_dir', 'batch_norm_seed'))


# --- Tables ----------------------------------------------------------------


def define_stage_table_flags(flag_values):
  """Defines the flags of scripts/stage_table.py."""
  _define(flag_values, 'multi_string', 'report', None,
          'STAGE=FILE: a line of the table, and the --report_json file it is '
          'read from; given once for each line.')


def stages(flag_values):
  """Makes a list of (stage, path) from the flags of stage_table.py."""
  _require(flag_values, 'report')
  found = []
  for given in flag_values.report:
    stage, separator, path = given.partition('=')
    if not (stage and separator and path):
      raise InputError('--report={}: expected STAGE=FILE, for example '
                       "--report='frozen graph=pb.json'".format(given))
    found.append((stage, path))
  return found


# --- Preprocessed images, and TFLite models on them ------------------------


def define_preprocessed_flags(flag_values):
  """Defines the flags of gen_preprocessed_data.py."""
  define_input_flags(
      flag_values, split_flag='eval_split', split='val',
      batch_flag='eval_batch_size', batch_size=1, crop_flag='eval_crop_size')
  # Deviates: the reference takes 1 whatever the flag says.
  flag_values.set_default('resize_factor', 1)
  define = functools.partial(_define, flag_values)
  define('string', 'preprocessed_dataset_dir', None,
         'Folder in which images/ and annotations/ are made.')
  define('string', 'image_list', None,
         'File with the names of the only images to take, one a line, such as '
         'checkpoints/post_train_quant/ptq.txt; img_N is the one on line N, '
         'counted from 0.')
  define('string', 'manifest', None,
         'File for one more copy of manifest.json, which says which image of '
         'the data set each img_N is.')
  define('boolean', 'overwrite', False,
         'Replace the images that an earlier run wrote there.')
  define('integer', 'num_workers', 0,
         'Threads that write images; 0: one for each processor.')


def preprocessed_options(flag_values):
  """Makes (DatasetOptions, PreprocessOptions, PreprocessedOptions)."""
  _require(flag_values, 'dataset_dir', 'preprocessed_dataset_dir')
  return (
      options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir, split=flag_values.eval_split,
          batch_size=flag_values.eval_batch_size).validate(),
      options.PreprocessOptions(
          crop_size=_size(flag_values, 'eval_crop_size'),
          **_given(flag_values, _RESIZE_FIELDS)).validate(),
      options.PreprocessedOptions(
          output_dir=flag_values.preprocessed_dataset_dir,
          **_given(flag_values, (
              'image_list', 'manifest', 'overwrite',
              'num_workers'))).validate())


def define_tflite_eval_flags(flag_values):
  """Defines the flags of segmentation_inference_eval_seg_tflite.py."""
  define = functools.partial(_define, flag_values)
  define('string', 'net_file', './checkpoints/float/freeze.tflite',
         'TFLite file to evaluate.')
  define('string', 'test_dir', './preprocessed/images',
         'Folder with the images, or the folder above it.')
  define('string', 'val_label_dir', None,
         'Folder with the annotations; none: annotations/ beside the images.')
  define('boolean', 'is_float_input', None,
         'What the input is expected to be; the file itself decides, and is '
         'refused where it is something else.')
  define('boolean', 'is_input_0_255', None,
         'Range of the input. A float input gets [-1, 1] unless this is true; '
         'a quantized one always gets pixels of 0 to 255.')
  define('integer', 'num_threads', 1,
         'Threads of one interpreter, where it can have several.')
  define('integer', 'num_workers', 0,
         'Processes with an interpreter each; 0: one for each processor.')
  _define_report_flags(define)


def tflite_eval_options(flag_values):
  """Makes (TfliteEvalOptions, EvalOptions)."""
  _require(flag_values, 'net_file', 'test_dir')
  return (
      options.TfliteEvalOptions(**_given(
          flag_values, options.TfliteEvalOptions._fields)).validate(),
      options.EvalOptions(**_given(
          flag_values, ('report_json', 'vis_dir', 'vis_images'))))
