"""Flags of training, evaluation and export."""
import functools

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError
from deeplab.flag_sets import shared

flags.disclaim_key_flags()


# --- Model --------------------------------------------------------------------

_MODEL_FIELDS_AS_FLAGS = (
    'output_stride', 'depth_multiplier', 'divisible_by', 'aspp_convs_filters',
    'aspp_with_concat_projection', 'aspp_with_separable_conv',
    'decoder_filters', 'decoder_use_separable_conv', 'decoder_use_sum_merge',
    'decoder_output_is_logits', 'batch_norm_decay', 'use_bounded_activation',
    'prediction_with_upsampled_logits', 'quantize_delay_step', 'fake_quant')


def define_model_flags(flag_values):
  """Defines the flags that shape the network, with options.ModelOptions."""
  default = options.ModelOptions()
  define = functools.partial(shared.define_flag, flag_values)
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
  define('integer', 'quantize_delay_step', default.quantize_delay_step,
         'Step from which values are fake-quantized to 8 bits; in evaluation '
         'and export, any from 0 on says that the checkpoint was trained so. '
         'Below 0: float.')
  define('enum', 'fake_quant', default.fake_quant,
         [options.CONTRIB, options.LAYERS],
         "Who fake-quantizes: TensorFlow 1.15's rewrite, or the suite's own "
         'layers, in half the time; not given: the first where there is one.')


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
    pooled_size = shared.size(flag_values, 'image_pooling_crop_size')
  return options.ModelOptions(
      crop_size=crop_size, num_classes=num_classes,
      decoder_output_stride=shared.integers(
          flag_values, 'decoder_output_stride'),
      atrous_rates=tuple(flag_values.atrous_rates or ()),
      image_pooling_crop_size=pooled_size,
      image_pooling_stride=shared.size(flag_values, 'image_pooling_stride'),
      **shared.given(flag_values, _MODEL_FIELDS_AS_FLAGS)).validate()


# --- Training -----------------------------------------------------------------

_TRAIN_FIELDS = tuple(
    field for field in options.TrainOptions._fields if field != 'label_weights')
_SCALE_FIELDS = (
    'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size')


def define_train_flags(flag_values):
  """Defines the flags of train.py."""
  shared.define_input_flags(
      flag_values, split_flag='train_split', split='train',
      batch_flag='train_batch_size', batch_size=8, crop_flag='train_crop_size')
  define = functools.partial(shared.define_flag, flag_values)
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
  shared.require(flag_values, 'train_logdir', 'dataset_dir')
  crop_size = shared.size(flag_values, 'train_crop_size')
  return {
      'dataset_options': options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir,
          split=flag_values.train_split,
          batch_size=flag_values.train_batch_size,
          seed=flag_values.seed).validate(),
      'preprocess_options': options.PreprocessOptions(
          crop_size=crop_size,
          **shared.given(
              flag_values, shared.RESIZE_FIELDS + _SCALE_FIELDS)).validate(),
      'model_options': model_options(flag_values, crop_size=crop_size),
      'options': options.TrainOptions(
          label_weights=tuple(flag_values.label_weights or ()),
          **shared.given(flag_values, _TRAIN_FIELDS)),
  }


# --- Evaluation ---------------------------------------------------------------


def _define_eval_flags(flag_values):
  """Defines what eval.py and eval_pb.py share."""
  shared.define_input_flags(
      flag_values, split_flag='eval_split', split='val',
      batch_flag='eval_batch_size', batch_size=1, crop_flag='eval_crop_size')
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'eval_logdir', None, 'Folder for TensorBoard events.')
  shared.define_report_flags(define)


def _eval_options(flag_values):
  """Makes the keyword arguments that both evaluations share."""
  shared.require(flag_values, 'dataset_dir')
  return {
      'dataset_options': options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir, split=flag_values.eval_split,
          batch_size=flag_values.eval_batch_size).validate(),
      'preprocess_options': options.PreprocessOptions(
          crop_size=shared.size(flag_values, 'eval_crop_size'),
          **shared.given(flag_values, shared.RESIZE_FIELDS)).validate(),
      'options': options.EvalOptions(
          **shared.given(flag_values, options.EvalOptions._fields)),
  }


def define_eval_flags(flag_values):
  """Defines the flags of eval.py."""
  _define_eval_flags(flag_values)
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'checkpoint_dir', None,
         'Folder to watch for checkpoints; or one checkpoint.')
  define('integer', 'eval_interval_secs', 300,
         'Least number of seconds between two evaluations.')
  define('integer', 'max_number_of_evaluations', 0,
         'Evaluations to stop after; 0: never.')
  define('integer', 'eval_timeout_secs', None,
         'Seconds without a new checkpoint to stop after; none: never.')
  define_model_flags(flag_values)


def eval_options(flag_values):
  """Makes the keyword arguments of evaluation.evaluate_checkpoints."""
  shared.require(flag_values, 'checkpoint_dir')
  common = _eval_options(flag_values)
  return dict(
      common, checkpoint_dir=flag_values.checkpoint_dir,
      model_options=model_options(
          flag_values, crop_size=common['preprocess_options'].crop_size),
      interval_secs=flag_values.eval_interval_secs,
      max_evaluations=flag_values.max_number_of_evaluations,
      timeout_secs=flag_values.eval_timeout_secs)


def define_eval_pb_flags(flag_values):
  """Defines the flags of eval_pb.py."""
  _define_eval_flags(flag_values)
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'pb', None, 'Frozen graph to evaluate.')
  define('string', 'input_node', contract.INPUT_NODE,
         'Node that gets images in [-1, 1].')
  define('string', 'output_node', contract.OUTPUT_NODE,
         'Node that gives labels.')


def eval_pb_options(flag_values):
  """Makes the keyword arguments of evaluation.evaluate_frozen_graph."""
  shared.require(flag_values, 'pb')
  return dict(
      _eval_options(flag_values), path=flag_values.pb,
      input_node=flag_values.input_node, output_node=flag_values.output_node)


# --- Export -------------------------------------------------------------------


def define_export_flags(flag_values):
  """Defines the flags of export_model.py."""
  define = functools.partial(shared.define_flag, flag_values)
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
  shared.define_resize_flags(flag_values)
  define_model_flags(flag_values)


def export_options(flag_values):
  """Makes the keyword arguments of export.export from export flags."""
  shared.require(flag_values, 'checkpoint_path', 'export_path')
  crop_size = shared.size(flag_values, 'crop_size')
  if flag_values.train_crop_size:
    wanted = shared.size(flag_values, 'train_crop_size')
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
          preprocessing=options.PreprocessOptions(
              crop_size=crop_size, **shared.given(
                  flag_values, shared.RESIZE_FIELDS)).validate()).validate(),
  }
