"""Tests flags and how scripts start."""
import importlib
import json
import os
import re
import subprocess
import sys

from absl import flags
import pytest

from deeplab import errors
from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.config import fields
from deeplab.errors import InputError
from deeplab.system import environment
from tests import flag_groups
from tests import scripts
from tests.flag_groups import arguments_of
from tests.flag_groups import parsed

SCRIPTS = ('build_ade20k_data.py', 'train.py', 'eval.py', 'export_model.py',
           'eval_pb.py')

# Flags of networks that the suite does not support.
OTHER_NETWORKS = {
    'aspp_with_squeeze_and_excitation', 'image_se_uses_qsigmoid',
    'dense_prediction_cell_json', 'nas_remove_os32_stride',
    'nas_stem_output_num_conv_filters', 'nas_use_classification_head'}
MODEL_FLAGS = {
    'aspp_convs_filters', 'aspp_with_concat_projection',
    'aspp_with_separable_conv', 'batch_norm_decay', 'decoder_filters',
    'decoder_output_is_logits', 'decoder_output_stride',
    'decoder_use_separable_conv', 'decoder_use_sum_merge', 'depth_multiplier',
    'divisible_by', 'image_pooling_crop_size', 'image_pooling_stride',
    'prediction_with_upsampled_logits', 'use_bounded_activation'}
# Flags that have no effect in the reference's script either.
WITHOUT_EFFECT = {
    'build_ade20k_data.py': set(),
    'train.py': set(),
    'eval.py': {'label_weights'},
    'export_model.py': {'label_weights'},
    'eval_pb.py': MODEL_FLAGS | {
        'label_weights', 'output_stride', 'eval_interval_secs'},
}
OTHER_DEFAULTS = {
    ('build_ade20k_data.py', 'image_format'): None,
    ('train.py', 'train_crop_size'): ['512', '512'],
    ('eval.py', 'eval_crop_size'): ['512', '512'],
    ('export_model.py', 'num_classes'): 32,
    ('export_model.py', 'output_stride'): 16,
}


@pytest.mark.parametrize('script', SCRIPTS)
def test_flags_of_the_reference_keep_their_names_and_defaults(
    script, golden_dir):
  with open(os.path.join(golden_dir, 'flags.json')) as content:
    reference = json.load(content)[script]
  ours = parsed(script)
  missing = set(reference) - set(ours)
  assert missing == (OTHER_NETWORKS | WITHOUT_EFFECT[script]) & set(reference)
  for name in set(reference) & set(ours):
    expected = OTHER_DEFAULTS.get((script, name), reference[name]['default'])
    assert ours[name].default == expected, name


def test_documented_flags_that_the_reference_does_not_define():
  assert parsed('train.py', '--dataset=ade20k').dataset == 'ade20k'
  made = arguments_of('export_model.py', '--train_crop_size=257,513')
  assert made['options'].checkpoint_path == 'c'
  assert made['model_options'].crop_size == (257, 513)
  assert made['options'].preprocessing.crop_size == (257, 513)


@pytest.mark.parametrize('arguments, words', [
    (['--tf_initial_checkpoints=x'],
     'unknown flag --tf_initial_checkpoints; did you mean '
     '--tf_initial_checkpoint?'),
    (['--zzz'], 'unknown flag --zzz'),
    (['--initialize_last_layer', '=', 'False'],
     'stray argument "=": write --flag=value, without spaces'),
    (['--seed=1', 'word'], 'stray argument "word": every argument is a '
                           '--flag=value'),
    (['--optimizer=sgd'], '--optimizer=sgd'),
    (['--train_batch_size=many'], '--train_batch_size=many'),
    (['--dataset=mine'], 'classes come from build_ade20k_data.py --label_map'),
    (['--num_classes=3'], 'classes come from build_ade20k_data.py --label_map'),
    (['--model_variant=mobilenet_v2'], 'the network is always MobileNetV2'),
    (['--eval_scales=0.5'], 'export_model.py --inference_scales=0.5,1.0 '
                            '--add_flipped_images, then eval_pb.py'),
    (['--undefok=foo', '--foo=1'], '--undefok=foo: unknown flags are always'),
    (['--foo', '--undefok', 'foo'], 'unknown flags are always refused'),
])
def test_bad_command_lines_are_refused(arguments, words):
  with pytest.raises(InputError) as error:
    parsed('train.py', *arguments)
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def line_of(script, *arguments, required=flag_groups.REQUIRED):
  """Returns the line after ERROR for a command line that is refused."""
  values = flags.FlagValues()
  with pytest.raises(InputError) as error:
    parsed(script, *list(required[script]) + list(arguments),
           flag_values=values)
    script_flags.SCRIPTS[script].arguments(values)
  return runner.in_flags(error.value, values)


def test_missing_required_flags_are_named():
  required = {'train.py': []}
  assert '--train_logdir is required: Folder' in line_of(
      'train.py', required=required)
  assert '--dataset_dir is required' in line_of(
      'train.py', '--train_logdir=x', required=required)


def test_every_number_has_bounds_and_errors_name_its_flag():
  for script in script_flags.SCRIPTS:
    values = parsed(script)
    for name in values:
      for cls, field in getattr(values[name], 'sets', ()):
        definition = fields.definitions(cls)[field]
        if definition.kind not in (int, float):
          continue
        assert definition.choices or definition.kind is float or (
            definition.most is not None), name
        times = definition.length or 1
        if name == 'crop_size':
          arguments = ['--crop_size=nan'] * times
        else:
          arguments = ['--{}={}'.format(name, ','.join(['1e400'] * times))]
        line = line_of(script, *arguments)
        assert '--{}='.format(name) in line and '\n' not in line, line


@pytest.mark.parametrize('script, arguments, line', [
    ('train.py', '--train_crop_size=512',
     '--train_crop_size=512: expected HEIGHT,WIDTH, for example 512,512, each '
     'a whole number from 1 to 8192'),
    ('train.py', '--train_crop_size=a,b',
     '--train_crop_size=a,b: expected HEIGHT,WIDTH, for example 512,512, each '
     'a whole number from 1 to 8192'),
    ('train.py', '--decoder_output_stride=four',
     '--decoder_output_stride=four: expected a list, each 4, 8 or 16'),
    ('train.py', '--train_batch_size=0',
     '--train_batch_size=0: expected a whole number from 1 to 4096'),
    ('train.py', '--max_resize_value=5',
     '--max_resize_value=5 without --min_resize_value: give both or neither'),
    ('train.py', '--min_scale_factor=3',
     '--min_scale_factor=3.0: expected at most --max_scale_factor=2.0'),
    ('train.py', '--output_stride=10',
     '--output_stride=10: expected 8, 16 or 32'),
    ('export_model.py', '--inference_scales=[0.5,1.0]',
     "flag --inference_scales=[0.5: could not convert string to float: "
     "'[0.5'"),
    ('export_model.py', '--crop_size=33',
     '--crop_size=33: expected HEIGHT,WIDTH, for example 512,512, each a whole '
     'number from 1 to 8192'),
    ('export_model.py', '--crop_size=8 --crop_size=9',
     '--crop_size=8,9: expected at least --output_stride=16 a side'),
    ('export_model.py', '--train_crop_size=8,9',
     '--train_crop_size=8,9: expected at least --output_stride=16 a side'),
    ('export_model.py',
     '--train_crop_size=257,257 --crop_size=513 --crop_size=513',
     '--train_crop_size=257,257 and --crop_size=513,513: expected the same, or '
     'one of them'),
    ('eval.py', '--decoder_output_is_logits',
     '--decoder_output_is_logits=true: expected a decoder; add '
     '--decoder_output_stride=4'),
    ('gen_preprocessed_data.py', '--preprocessed_dataset_dir=',
     '--preprocessed_dataset_dir is required: Folder in which images/ and '
     'annotations/ are made.'),
])
def test_error_messages(script, arguments, line):
  assert line_of(script, *arguments.split()) == line


def test_options_of_other_scripts_appear_as_flags_too():
  error = InputError('add {} or drop {}', errors.option('mode', 'qat'),
                     errors.option('batch_size'))
  values = parsed('eval.py')
  assert runner.in_flags(error, values) == (
      'add --mode=qat or drop --eval_batch_size')
  assert str(error) == 'add mode=qat or drop batch_size'


def test_a_path_appears_with_the_flag_of_the_running_script():
  error = InputError('{}: no such file', errors.option('net_file', 'm.tflite'))
  values = parsed('scripts/visualize.py', '--model=m.tflite')
  assert runner.in_flags(error, values) == '--model=m.tflite: no such file'
  values = parsed('scripts/compare_models.py', '--model=a=m.tflite')
  assert runner.in_flags(error, values) == 'm.tflite: no such file'


def test_nested_messages_keep_their_options():
  reason = errors.joined('; ', [
      errors.Message('drop {}', errors.option('batch_size')), 'left {} as is'])
  error = InputError('{}: {}', '/a/{path}', InputError('{}', reason))
  assert str(error) == '/a/{path}: drop batch_size; left {} as is'
  assert runner.in_flags(error, parsed('train.py')) == (
      '/a/{path}: drop --train_batch_size; left {} as is')


def test_a_message_without_arguments_is_not_formatted():
  assert str(InputError('{no} {format}')) == '{no} {format}'


def test_flagfiles_are_read_or_named(tmp_path):
  path = tmp_path / 'flags'
  with pytest.raises(InputError) as error:
    parsed('train.py', '--flagfile={}'.format(path))
  assert str(error.value) == '--flagfile={}: No such file or directory'.format(
      path)
  path.write_text('--train_batch_size=3\n')
  assert parsed(
      'train.py', '--flagfile={}'.format(path)).train_batch_size == 3
  path.write_text('--undefok=foo\n--foo=1\n')
  with pytest.raises(InputError, match='unknown flags are always refused'):
    parsed('train.py', '--flagfile={}'.format(path))
  path.write_bytes(b'\xff\xfe')
  with pytest.raises(InputError, match='--flagfile: not a text file'):
    parsed('train.py', '--flagfile={}'.format(path))


def test_flags_become_options():
  made = arguments_of(
      'train.py', '--seed=3',
      '--decoder_output_stride=4,8', '--atrous_rates=6', '--atrous_rates=12',
      '--label_weights=2,3', '--label_weights=4', '--train_crop_size=257,513',
      '--image_pooling_crop_size=129,129', '--min_resize_value=5',
      '--train_batch_size=3', '--min_scale_factor=0.75')
  assert made['model_options'].decoder_output_stride == (4, 8)
  assert made['model_options'].atrous_rates == (6, 12)
  assert made['model_options'].image_pooling_crop_size == (129, 129)
  assert made['model_options'].crop_size == (257, 513)
  assert made['preprocess_options'].crop_size == (257, 513)
  assert made['preprocess_options'].min_resize_value == 5
  assert made['preprocess_options'].min_scale_factor == 0.75
  assert made['preprocess_options'].max_scale_factor == 2.0
  assert made['dataset_options'].batch_size == 3
  assert made['dataset_options'].seed == made['options'].seed == 3
  assert made['options'].label_weights == (2.0, 3.0, 4.0)


def test_evaluation_has_no_flags_for_random_scaling():
  values = parsed('eval.py', '--checkpoint_dir=c', '--dataset_dir=d',
                  '--eval_timeout_secs=9', '--quantize_delay_step=0')
  assert 'min_scale_factor' not in values
  made = script_flags.EVAL.arguments(values)
  assert made['watch_options'].timeout_secs == 9
  assert made['model_options'].is_quantized


def decoys(folder):
  """Packages named like modules of the reference."""
  for name in ('datasets', 'utils', 'model', 'common', 'core', 'nets'):
    (folder / name).mkdir()
    (folder / name / '__init__.py').write_text('raise ImportError("decoy")')
  return {'PYTHONPATH': str(folder)}


@pytest.mark.parametrize('script', ['train.py', 'eval_pb.py'])
def test_help_works_anywhere_and_without_tensorflow(script, tmp_path):
  env = decoys(tmp_path)
  (tmp_path / 'tensorflow').mkdir()
  (tmp_path / 'tensorflow' / '__init__.py').write_text(
      'raise ImportError("TensorFlow was imported")')
  done = subprocess.run(
      [sys.executable, os.path.join(scripts.REPOSITORY, script), '--help'],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      universal_newlines=True, cwd='/',
      env=dict(os.environ, PYTHONSAFEPATH='1', **env))
  assert done.returncode in (0, 1)  # absl ends --help with status 1
  first_line = importlib.import_module(
      script[:-len('.py')]).__doc__.splitlines()[0]
  assert first_line in done.stdout
  own = set(parsed(script)) - set(flags.FlagValues()) - {'flagfile', 'undefok'}
  for name in own:
    assert re.search(r'^  --(\[no\])?{}:'.format(name), done.stdout, re.M), name


def test_refusals_print_one_line_and_exit_with_status_2():
  line = scripts.refusal('eval.py', '--checkpoint_dirs=x')
  assert line == ('ERROR eval.py: unknown flag --checkpoint_dirs; did you mean '
                  '--checkpoint_dir?')


@pytest.mark.slow
def test_runner_sets_up_logging_memory_and_debug(tmp_path):
  """The log shows flags, memory is pooled, --debug shows a traceback."""
  script = tmp_path / 'script.py'
  script.write_text("""
import faulthandler, logging, os, resource, sys
sys.path.insert(0, sys.argv.pop(1))
from deeplab import errors
from deeplab.cli import runner, script_flags

def main(**options):
  logging.warning('%s and %d', errors.option('batch_size', 3), 4)
  print(faulthandler.is_enabled(), os.environ['TF_CPU_ALLOCATOR_USE_BFC'])
  raise errors.InputError('bad')

resource.setrlimit(resource.RLIMIT_AS, (2 ** 40, 2 ** 40))
runner.run(main, script_flags.EVAL_PB)
""")
  done = subprocess.run(
      [sys.executable, str(script), scripts.REPOSITORY, '--dataset_dir=d',
       '--pb=p', '--debug'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True)
  assert done.returncode == 1
  # faulthandler is off if the address space is small.
  assert done.stdout == 'False true\n'
  log, *trace = done.stderr.splitlines()
  assert log.endswith('] --eval_batch_size=3 and 4')
  assert 'Traceback' in done.stderr and 'InputError: bad' in trace[-1]


def environment_with(monkeypatch, **versions):
  monkeypatch.setattr(environment, 'installed_version',
                      lambda package: versions.get(package))


_TF1 = '; run ./scripts/setup.sh tf1, then use .venvs/tf1/bin/python'
_TF2 = '; run ./scripts/setup.sh tf2, then use .venvs/tf2/bin/python'


@pytest.mark.parametrize('version, wanted, begin, end', [
    ('2.2.3', 'tf1 tf2', None, None),
    ('2.21.0', 'tf1 modern', None, None),
    ('2.2.3', 'tf1', 'needs TensorFlow 1.15 (found 2.2.3 for ', _TF1),
    (None, 'tf1', 'needs TensorFlow 1.15 (none found for ', _TF1),
    # '2.2' is not a prefix of '2.21'.
    ('2.21.0', 'tf2', 'needs TensorFlow 2.2 (found 2.21.0 for ', _TF2),
    ('2.22.0', 'tf2 modern', 'needs TensorFlow 2.2 or 2.21 (found 2.22.0 for ',
     _TF2 + '; or modern instead of tf2')])
def test_a_wrong_environment_is_named(
    monkeypatch, version, wanted, begin, end):
  for package in ('tensorflow', 'tensorflow-gpu'):
    environment_with(monkeypatch, **{package: version})
    problem = environment.problem_with(wanted.split())
    if begin is None:
      assert problem is None
    else:
      assert problem.startswith(begin) and problem.endswith(end)


@pytest.mark.parametrize('version, limit, words', [
    ('1.15.5', 1.5, 'TensorFlow 1.15.5 needs 1.6 GiB of address space, and '
     'more for the network; ulimit -v leaves 1.5 GiB'),
    ('2.21.0', 2.6, 'TensorFlow 2.21.0 needs 2.7 GiB'),
    ('2.2.3', 2.5, None), ('1.15.5', None, None), (None, 0.1, None)])
def test_an_address_space_too_small_for_tensorflow_is_named(
    monkeypatch, version, limit, words):
  environment_with(monkeypatch, **{
      'tensorflow': version, 'tflite-runtime': '2.14.0'})
  monkeypatch.setattr(environment.resource, 'getrlimit', lambda unused: (
      -1 if limit is None else int(limit * 2 ** 30), -1))
  problem = environment.problem_with(
      ('tf1', 'tf2', 'modern', environment.TFLITE))
  assert problem.startswith(words) if words else problem is None


def test_a_memory_pool_set_by_the_user_is_kept(monkeypatch):
  monkeypatch.setenv(environment.MEMORY_POOL, 'false')
  environment.prepare_tensorflow()
  assert os.environ[environment.MEMORY_POOL] == 'false'


@pytest.mark.slow
@pytest.mark.modern
def test_tensorflow_starts_without_keras_and_matplotlib():
  # In a new process, because other tests import both.
  loaded = subprocess.check_output([sys.executable, '-c', (
      'import sys; from deeplab.system import environment; '
      'environment.prepare_tensorflow(); import tensorflow; '
      'print({"keras", "matplotlib"} & set(sys.modules))')],
                                   cwd=scripts.REPOSITORY)
  assert loaded == b'set()\n'


def test_a_script_names_a_wrong_environment(tmp_path):
  # The first distribution found claims to be another TensorFlow.
  info = tmp_path / 'tensorflow-2.99.0.dist-info'
  info.mkdir()
  (info / 'METADATA').write_text(
      'Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.99.0\n')
  line = scripts.refusal('train.py', '--train_logdir=x', '--dataset_dir=y',
                         env={'PYTHONPATH': str(tmp_path)})
  assert 'needs TensorFlow 1.15 or 2.21 (found 2.99.0' in line


def test_without_absl_the_remedy_is_named(tmp_path):
  (tmp_path / 'absl').mkdir()
  (tmp_path / 'absl' / '__init__.py').write_text('raise ImportError')
  line = scripts.refusal('train.py', env={'PYTHONPATH': str(tmp_path)})
  assert 'needs the package absl-py' in line and 'setup.sh' in line
