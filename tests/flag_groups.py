"""Required flags of every script, and how tests parse command lines."""
from absl import flags

from deeplab.cli import runner
from deeplab.cli import script_flags

REQUIRED = {
    'build_ade20k_data.py': [],
    'gen_preprocessed_data.py': [
        '--dataset_dir=d', '--preprocessed_dataset_dir=p'],
    'train.py': ['--train_logdir=l', '--dataset_dir=d'],
    'eval.py': ['--checkpoint_dir=c', '--dataset_dir=d'],
    'eval_pb.py': ['--pb=p', '--dataset_dir=d'],
    'export_model.py': ['--checkpoint_path=c', '--export_path=e'],
    'post_training_quant.py': [
        '--graph_def=g', '--out_tflite=o', '--dataset_dir=d',
        '--input_type=uint8'],
    'segmentation_inference_eval_seg_tflite.py': [],
    'scripts/compare_models.py': [
        '--model=a', '--model=b', '--pictures=p', '--output_dir=o'],
    'scripts/convert_tflite.py': [
        '--graph_def=g', '--out_tflite=o', '--mode=qat'],
    'scripts/inspect_model.py': ['--model=m'],
    'scripts/launch_local.py': ['--hosts=2'],
    'scripts/loadgen.py': ['--model=m', '--output_dir=o'],
    'scripts/make_synthetic_ade20k.py': [],
    'scripts/merge_reports.py': ['--report_json=r'],
    'scripts/rebuild_checkpoint.py': ['--tflite=t', '--output_dir=o'],
    'scripts/reproduce.py': [],
    'scripts/score_accuracy_log.py': ['--accuracy_log=l'],
    'scripts/stage_table.py': ['--report=stage=file'],
    'scripts/visualize.py': ['--model=m', '--pictures=p', '--output_dir=o'],
}


def parsed(script, *arguments, flag_values=None):
  """Returns the FlagValues of a script's command line."""
  values = flags.FlagValues() if flag_values is None else flag_values
  script_flags.SCRIPTS[script].define_flags(values)
  runner.parse(script_flags.SCRIPTS[script], [script] + list(arguments), values)
  return values


def arguments_of(script, *arguments):
  """Returns the keyword arguments that a script's main gets.

  Required flags are added to the command line.
  """
  return script_flags.SCRIPTS[script].arguments(
      parsed(script, *REQUIRED[script] + list(arguments)))
