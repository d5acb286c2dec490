"""The README and docs/: what they name exists.

The README's commands are run by tests/smoke/; for those of docs/ see
test_docs.py.
"""
import glob
import json
import os
import re

import pytest

from deeplab import contract
from deeplab import environment
from tests import readme
from tests import scripts

# Nodes of the exported graph, and what is there once a user has run something.
NOT_IN_THE_REPOSITORY = {
    'MobilenetV2/MobilenetV2/input', 'MobilenetV2/expanded_conv_9/project',
    'decoder/feature_projection0', 'ADE20K', 'demo_output/',
    'demo_output/pictures/predictions.png', 'freeze.pb', 'manifest.json',
    'model_options.json', 'train.json', 'val.json', 'preprocessed/images',
    'images/', 'annotations/', 'a.png', 'freeze.json', 'freeze_saved_model/',
    'model.tflite.json', 'trained/model_options.json', 'parts/',
    'images/training', 'images/validation', 'images/img_N.png',
    'annotations/training', 'annotations/validation', 'annotations/img_N.png',
    '.venvs/tf1', '.venvs/tf2', '.venvs/modern', '.venvs/tf1/bin/python',
    'mlperf_log_accuracy.json', 'report.json', 'summary.json',
    'img_00000000.png', 'NAME.overlay.png', 'overlays.json',
    'comparison/index.html', 'comparison/comparison.json',
    'comparison/charts', 'comparison/images',
    'checkpoints/float/freeze.tflite',
    'checkpoints/post_train_quant/freeze_ptq.tflite',
    'checkpoints/quantize_aware_training/freeze_qat.tflite'}


PAGES = ['README.md'] + [os.path.join('docs', page) for page in readme.pages()]


def all_pages():
  return '\n'.join(map(readme.read, PAGES))


def prose_of(markdown):
  return re.sub(r'^( *)```.*?^\1```$', '', markdown, flags=re.M | re.S)


def quoted_in(markdown):
  """Returns what stands between single backticks, outside of code blocks."""
  return re.findall(r'`([^`\n]+)`', prose_of(markdown))


# --- The text --------------------------------------------------------------


def test_documented_commands_stand_word_for_word_and_in_order(reference_dir):
  path = os.path.join(os.path.dirname(reference_dir), 'mission.md')
  if not os.path.exists(path):
    pytest.skip('no mission.md beside DEEPLAB_REFERENCE_DIR')
  with open(path, encoding='utf-8') as text:
    documented = readme.code_blocks(text.read())
  assert len(documented) == 11
  ours = iter(readme.code_blocks(readme.read('README.md')))
  for command in documented:
    assert command in ours, 'missing or out of order: ' + command


def test_flags_in_commands_are_flags_of_their_scripts():
  commands = [readme.words_of(command)
              for command in readme.python_commands(all_pages())]
  assert len(commands) >= 9
  for _, script, *arguments in commands:
    end = (arguments + ['--']).index('--')
    check_flags(script, arguments[:end])
    check_flags('train.py', arguments[end + 1:])  # of scripts/launch_local.py


def check_flags(script, arguments):
  known = scripts.flags_of(script)
  for argument in arguments:
    # Of a script that takes files by their names alone.
    if not argument.startswith('-') and 'words=' in readme.read(script):
      continue
    assert argument.startswith('--'), (script, argument)
    assert argument[2:].split('=')[0] in known, (script, argument)


def test_flags_in_the_text_are_flags_of_some_script():
  known = {'zip', 'all'}  # of shell scripts
  assert '--zip=' in readme.read('download_and_convert_ade20k.sh')
  assert '--all' in readme.read('scripts/test.sh')
  for path in (glob.glob(os.path.join(scripts.REPOSITORY, '*.py')) +
               glob.glob(os.path.join(scripts.REPOSITORY, 'scripts', '*.py'))):
    known |= scripts.flags_of(os.path.relpath(path, scripts.REPOSITORY))
  named = {name for quoted in quoted_in(all_pages())
           for name in re.findall(r'--([a-z]\w*)', quoted)}
  assert len(named) > 20
  # In '--flag=value' and '--flag = value', which show how to write one.
  assert named - known == {'flag'}


def test_paths_exist():
  markdown = all_pages()
  paths = {quoted for quoted in quoted_in(markdown) if re.match(
      r'(\./)?[\w./]+(/[\w.]*|\.(py|sh|md|txt|json|pb|tflite|png))$', quoted)}
  for block in readme.code_blocks(markdown):
    paths |= set(re.findall(r'(?:\./|python )([\w./]+\.(?:sh|py))', block))
  paths = {re.sub(r'^\./', '', path) for path in paths}
  assert {'train.py', 'deeplab/nets/', 'scripts/demo.sh'} <= paths
  missing = [path for path in sorted(paths - NOT_IN_THE_REPOSITORY)
             if not os.path.exists(os.path.join(scripts.REPOSITORY, path))]
  assert missing == []


def anchors_of(path):
  return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
          for heading in re.findall(
              r'^#+ (.*)$', prose_of(readme.read(path)), re.M)}


def test_links_within_the_repository_lead_somewhere():
  links = [(page, target) for page in PAGES
           for target in re.findall(r'\]\(([^)]+)\)', readme.read(page))
           if '://' not in target]
  assert len(links) > 15
  for page, target in links:
    name, _, anchor = target.partition('#')
    path = os.path.normpath(
        os.path.join(os.path.dirname(page), name)) if name else page
    assert os.path.exists(os.path.join(scripts.REPOSITORY, path)), (
        page, target)
    if anchor:
      assert anchor in anchors_of(path), (page, target)


def test_class_table_is_the_contracts():
  section = readme.section('Classes')
  cells = re.findall(r'(\d+) ([a-z]+) \|', section)
  assert cells == [(str(index), name)
                   for index, name in enumerate(contract.CLASS_NAMES)]


def test_environment_table_names_what_is_installed():
  rows = dict(re.findall(
      r'^\| `\.venvs/(\w+)` \| TensorFlow ([\d.]+),', readme.section(
          'Environment'), re.M))
  assert set(rows) == set(environment.ENVIRONMENTS)
  for name, version in rows.items():
    pinned = readme.read('requirements-{}.txt'.format(name)).splitlines()
    assert 'tensorflow=={}'.format(version) in pinned
    assert version.startswith(environment.ENVIRONMENTS[name] + '.')


def test_environment_table_is_what_the_scripts_ask_for():
  wanted = {'tf1 or modern': "environments=('tf1', 'modern')",
            'tf1, tf2 or modern': "environments=('tf1', 'tf2', 'modern')",
            'tf2 or modern': "environments=('tf2', 'modern')",
            'tf2, modern, or anything with a TFLite interpreter':
                "environments=('tf2', 'modern', environment.TFLITE)",
            'modern': "environments=('modern',)",
            'any; they need no TensorFlow': 'environments=()',
            'any Python from 3.6 on, without a package':
                'Python 3.6 or newer and no package'}
  rows = re.findall(
      r'^\| (`[^|]*\.py`) \| ([^|]*) \|$', readme.read('README.md'), re.M)
  named = []
  for names, environments in rows:
    for script in re.findall('`(.*?)`', names):
      assert wanted[environments] in readme.read(script), script
      named.append(script)
  there = [os.path.relpath(path, scripts.REPOSITORY) for pattern in (
      '*.py', 'scripts/*.py') for path in glob.glob(
          os.path.join(scripts.REPOSITORY, pattern))]
  assert sorted(named) == sorted(there)


def test_published_scores_are_the_reference_s(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as numbers:
    published = json.load(numbers)['published_miou_full_val_2000_images']
  section = readme.read('README.md').split('\n## Published models\n')[1].split(
      '\n## ')[0]
  cells = [[cell.strip() for cell in line.split('|')[1:-1]]
           for line in section.splitlines() if line.startswith('|')]
  rows = {row[0]: row[1:] for row in cells}
  columns = ('ckpt', 'pb', 'tflite_x86', 'tflite_on_device_cpu')
  for model, name in (('float', 'Float'),
                      ('quantize_aware_training',
                       'Quantization-aware training'),
                      ('post_train_quant', 'Post-training quantization')):
    shown = {column: [float(score) for score in cell.split('/')]
             for column, cell in zip(columns, rows[name]) if cell}
    assert shown == {
        column: score if isinstance(score, list) else [score]
        for column, score in published[model].items()}


def test_tests_in_the_tables_exist():
  """Files, and names of tests or how they begin, without 'test_'."""
  tables = readme.read('tests/README.md').split('## Attacks')[1]
  quoted = [word for word in quoted_in(tables)
            if re.match(r'(fuzz/)?[a-z0-9]\w+(\.py)?$', word)]
  files = {word for word in quoted if word.endswith('.py')}
  assert len(files) > 20
  assert [name for name in sorted(files) if not os.path.exists(os.path.join(
      scripts.REPOSITORY, 'tests', name))] == []
  defined = ' '.join(
      name for path in glob.glob(os.path.join(
          scripts.REPOSITORY, 'tests', '**', '*.py'), recursive=True)
      for name in re.findall(
          r'def (test_\w+)', readme.read(os.path.relpath(
              path, scripts.REPOSITORY))))
  assert [name for name in quoted
          if name not in files and name not in defined] == []
