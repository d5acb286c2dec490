"""Tests commands, flags, links, numbers and messages in README and docs/.

The README's commands are run by tests/smoke/. A bash block of docs/ is run by
the test that calls `Shell.run_documented('page.md', 'how the block begins')`.
"""
import ast
import glob
import json
import os
import re

import pytest

from deeplab import constants
from deeplab.cli import script_flags
from deeplab.system import environment
from tests import readme
from tests import scripts

PAGES = ['README.md'] + [os.path.join('docs', page) for page in readme.pages()]
# Placeholders and values in a quoted message.
_VALUE = re.compile(r'\.\.\.|None|\d[\d.]*(?: (?:or|to) \d[\d.]*)*')
# The operating system writes this message.
_NOT_OURS = {'No space left on device'}


def sources(*patterns):
  """Returns the texts of the repository's files that match the patterns."""
  return [readme.read(os.path.relpath(path, scripts.REPOSITORY))
          for pattern in patterns for path in glob.glob(
              os.path.join(scripts.REPOSITORY, pattern), recursive=True)]


def rows_of(markdown):
  return [[cell.strip() for cell in line.split('|')[1:-1]]
          for line in markdown.splitlines() if line.startswith('|')]


# --- Commands and flags ----------------------------------------------------


def test_required_commands_are_in_the_readme_verbatim(reference_dir):
  path = os.path.join(os.path.dirname(reference_dir), 'mission.md')
  if not os.path.exists(path):
    pytest.skip('no mission.md beside DEEPLAB_REFERENCE_DIR')
  with open(path, encoding='utf-8') as text:
    documented = readme.code_blocks(text.read())
  assert len(documented) == 11
  ours = iter(readme.commands(readme.read('README.md')))
  for command in documented:
    assert command in ours, 'missing or out of order: ' + command


def test_flags_in_commands_exist_in_their_scripts():
  commands = [readme.words_of(command) for page in PAGES
              for command in readme.python_commands(readme.read(page))]
  assert len(commands) >= 9
  for _, script, *arguments in commands:
    end = (arguments + ['--']).index('--')
    for name, flags in ((script, arguments[:end]),
                        # scripts/launch_local.py passes these on
                        ('train.py', arguments[end + 1:])):
      named = {flag[2:].split('=')[0] for flag in flags
               if flag.startswith('--')}
      assert named <= scripts.flags_of(name), name


def test_flags_in_the_text_exist_in_some_script():
  # Flags of shell scripts, TensorBoard and two other tools.
  known = {'zip', 'all', 'quick', 'logdir', 'json', 'only', 'rounds'}
  for script in script_flags.SCRIPTS:
    known |= scripts.flags_of(script)
  named = {name for page in PAGES
           for quoted in re.findall(r'`([^`\n]+)`', readme.read(page))
           for name in re.findall(r'--([a-z]\w*)', quoted)}
  # '--flag=value' shows the form of a flag.
  assert named - known <= {'flag'}


def test_every_command_is_run_by_a_test():
  runs = [
      tuple(map(ast.literal_eval, node.args))
      for source in sources('tests/**/test_*.py') if '_documented(' in source
      for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
      and getattr(node.func, 'attr', '') in (
          'run_documented', 'start_documented')]
  for page in readme.pages():
    for block in readme.fenced(readme.read('docs', page)):
      assert block.language != 'bash' or any(
          page == name and block.content.startswith(beginning)
          for name, beginning in runs), (page, block.content)


def test_the_audit_checks_pinned_requirements(tmp_path):
  """A stand-in for pip-audit, which needs a server, prints its arguments."""
  audit = tmp_path / 'bin' / 'pip-audit'
  audit.parent.mkdir()
  audit.write_text('#!/bin/sh\necho "$@"\ncat "$4"\n')
  audit.chmod(0o755)
  (tmp_path / 'home').mkdir()
  printed = readme.Shell(tmp_path / 'home').run_documented(
      'security.md', 'pip-audit', PATH='{}{}{}'.format(
          audit.parent, os.pathsep, os.environ['PATH'])).splitlines()
  assert printed[0] == '--strict --no-deps -r requirements-tf1.txt'
  # --no-deps requires this.
  lines = [line for line in printed[1:] if line and not line.startswith('#')]
  assert lines and all('==' in line for line in lines)


# --- Links, numbers, messages ----------------------------------------------


def test_links_within_the_repository_have_targets():
  for page in PAGES:
    for target in re.findall(r'\]\(([^)]+)\)', readme.read(page)):
      if '://' in target:
        continue
      name, _, anchor = target.partition('#')
      path = os.path.normpath(
          os.path.join(os.path.dirname(page), name)) if name else page
      assert os.path.exists(os.path.join(scripts.REPOSITORY, path)), target
      assert not anchor or anchor in [
          re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
          for heading in re.findall(
              r'^#+ (.*)$', readme.read(path), re.M)], target


def test_pictures_are_small_and_shown_and_their_commands_have_these_flags():
  shown = {os.path.basename(target) for page in PAGES for target in re.findall(
      r'!\[[^]]+\]\(([^)]+)\)', readme.read(page))}
  pictures = glob.glob(os.path.join(
      scripts.REPOSITORY, 'docs', 'images', '*.png'))
  assert {os.path.basename(path) for path in pictures} == shown
  assert max(map(os.path.getsize, pictures)) < 2 ** 16
  text = readme.read('docs', 'images', 'make.sh')
  commands = re.findall(r'^"\$python" (.*\.py"?(?:.*\\\n)+.*)', text, re.M)
  assert len(commands) == 3
  for command in commands:
    script, *arguments = readme.words_of(command)
    assert {argument[2:].split('=')[0] for argument in arguments} <= (
        scripts.flags_of(script.replace('$repository/', '')))


def test_classes_match_the_constants():
  cells = re.findall(r'(\d+)\s([a-z]+)[,.]', readme.section('Classes'))
  assert cells == [(str(index), name)
                   for index, name in enumerate(constants.CLASS_NAMES)]


def test_environment_table_names_the_installed_versions():
  rows = dict(re.findall(
      r'^\| `\.venvs/(\w+)` \| TensorFlow ([\d.]+),', readme.section(
          'Environment'), re.M))
  assert set(rows) == set(environment.ENVIRONMENTS)
  for name, version in rows.items():
    pinned = readme.read('requirements-{}.txt'.format(name)).splitlines()
    assert 'tensorflow=={}'.format(version) in pinned


def test_published_scores_match_the_reference(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as numbers:
    published = json.load(numbers)['published_miou_full_val_2000_images']
  rows = {row[0]: row[1:] for row in rows_of(
      readme.section('Published models'))}
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


def test_symptoms_are_messages_of_the_scripts():
  """Quoted messages of the tables occur in the source, except for values."""
  said = sources('scripts/*.sh')
  for source in sources('*.py', 'scripts/*.py', 'deeplab/**/*.py'):
    # The field had another name before Python 3.8.
    said += filter(lambda text: isinstance(text, str), (
        getattr(node, 'value', getattr(node, 's', None))
        for node in ast.walk(ast.parse(source))))
  tables = rows_of(readme.section('Troubleshooting')) + rows_of(
      readme.read('docs', 'troubleshooting.md'))
  symptoms = {text for row in tables
              for text in re.findall('`([^`]+)`', row[0])} - _NOT_OURS
  assert len(symptoms) > 20
  assert [symptom for symptom in sorted(symptoms) if not any(map(
      re.compile('.+?'.join(map(
          re.escape, _VALUE.split(symptom)))).search, said))] == []
