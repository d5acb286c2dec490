"""Flags of what makes TFLite files, and of what reads them."""
import functools

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError
from deeplab.flag_sets import shared

flags.disclaim_key_flags()


def _define_conversion_flags(flag_values):
  """Defines what both conversions share."""
  define = functools.partial(shared.define_flag, flag_values)
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
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'dataset_dir', None,
         'Folder with the calibration images img_N.png, as '
         'gen_preprocessed_data.py writes it.')
  define('enum', 'input_type', None, ['float', 'uint8'],
         'Type of the input: float32 in [-1, 1], or pixels as uint8. '
         'Required.')
  define('integer', 'sample_num', contract.CALIBRATION_IMAGES,
         'Number of calibration images; the first ones are taken.')


def post_training_quant_options(flag_values):
  """Makes the keyword arguments of conversion.post_training_quantize."""
  shared.require(flag_values, 'dataset_dir', 'graph_def', 'out_tflite')
  if not flag_values.input_type:
    raise InputError('--input_type is required: float (float32 in [-1, 1]) or '
                     'uint8 (pixels, as published)')
  return shared.given(flag_values, _CONVERSION_FIELDS + (
      'dataset_dir', 'input_type', 'sample_num'))


def define_convert_tflite_flags(flag_values):
  """Defines the flags of scripts/convert_tflite.py."""
  _define_conversion_flags(flag_values)
  define = functools.partial(shared.define_flag, flag_values)
  define('enum', 'mode', None, ['float', 'qat'],
         'float: no quantization; qat: of a quantization-aware graph. '
         'Required.')
  define('list', 'quantized_input_stats',
         ['{:g}'.format(value) for value in contract.QUANTIZED_INPUT_STATS],
         'MEAN,DEVIATION of the uint8 input of --mode=qat, whose real value '
         'is (pixel - MEAN) / DEVIATION.')


def convert_tflite_options(flag_values):
  """Makes the keyword arguments of conversion.convert."""
  shared.require(flag_values, 'graph_def', 'out_tflite')
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
  return dict(shared.given(flag_values, _CONVERSION_FIELDS + ('mode',)),
              quantized_input_stats=(mean, deviation))


def define_tflite_eval_flags(flag_values):
  """Defines the flags of segmentation_inference_eval_seg_tflite.py."""
  define = functools.partial(shared.define_flag, flag_values)
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
  shared.define_report_flags(define)


def tflite_eval_options(flag_values):
  """Makes (TfliteEvalOptions, EvalOptions)."""
  shared.require(flag_values, 'net_file', 'test_dir')
  return (
      options.TfliteEvalOptions(**shared.given(
          flag_values, options.TfliteEvalOptions._fields)).validate(),
      options.EvalOptions(**shared.given(
          flag_values, ('report_json', 'vis_dir', 'vis_images'))))


def define_rebuild_flags(flag_values):
  """Defines the flags of scripts/rebuild_checkpoint.py."""
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'tflite', None, 'TFLite file to rebuild from.')
  define('string', 'output_dir', None,
         'Folder for the checkpoint; must not hold one already.')
  define('integer', 'batch_norm_seed', None,
         'Draw batch norm from this seed and let the weights make up for it, '
         'to exercise folding; not given: batch norm is the identity.')


def rebuild_options(flag_values):
  """Makes the keyword arguments of rebuild.rebuild."""
  shared.require(flag_values, 'tflite', 'output_dir')
  return shared.given(flag_values, ('tflite', 'output_dir', 'batch_norm_seed'))


def define_stage_table_flags(flag_values):
  """Defines the flags of scripts/stage_table.py."""
  shared.define_flag(
      flag_values, 'multi_string', 'report', None,
      'STAGE=FILE: a line of the table, and the --report_json file it is '
      'read from; given once for each line.')


def stages(flag_values):
  """Makes a list of (stage, path) from the flags of stage_table.py."""
  shared.require(flag_values, 'report')
  found = []
  for given in flag_values.report:
    stage, separator, path = given.partition('=')
    if not (stage and separator and path):
      raise InputError('--report={}: expected STAGE=FILE, for example '
                       "--report='frozen graph=pb.json'".format(given))
    found.append((stage, path))
  return found
