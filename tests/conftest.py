"""Fixtures shared by all tests, such as the folders of golden data."""
import collections
import os
import signal
import sys

import pytest

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if REPOSITORY not in sys.path:
  sys.path.insert(0, REPOSITORY)

from tests import shallow as _shallow  # found through the line above  # noqa: E402


def pytest_configure(config):
  """Does what every script does before TensorFlow is loaded."""
  from deeplab.system import environment
  environment.prepare_tensorflow()
  # A shell starts background jobs with Ctrl-C ignored; children inherit this.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  # nohup does the same with SIGHUP.
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  # Newer releases of pytest-xdist would sort files by their number of tests.
  config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)  # after deselection by marks
def pytest_collection_modifyitems(items):
  """Puts files with the most work first, so that all workers end together.

  One worker runs all tests of a file, because they share fixtures.
  """
  work = collections.Counter()
  for item in items:
    work[item.fspath] += (
        150 if item.get_closest_marker('extended') else
        30 if item.get_closest_marker('slow') else 1)
  items.sort(key=lambda item: -work[item.fspath])


def _folder_from(variable):
  folder = os.environ.get(variable)
  if not folder:
    pytest.skip('{} is not set'.format(variable))
  assert os.path.isdir(folder), '{}={}: no such folder'.format(variable, folder)
  return folder


@pytest.fixture(scope='session')
def golden_dir():
  """The folder with the reference's smaller golden outputs."""
  return os.path.join(REPOSITORY, 'tests', 'golden')


@pytest.fixture(scope='session')
def reference_dir():
  """The folder with the reference's golden outputs, models and numbers."""
  return _folder_from('DEEPLAB_REFERENCE_DIR')


@pytest.fixture(scope='session')
def reference_dir_or_none():
  """Returns the same folder, or None if it is not set."""
  return os.environ.get('DEEPLAB_REFERENCE_DIR') or None


@pytest.fixture(scope='session')
def ade20k_sample_dir():
  """The folder with a few real ADE20K pairs."""
  return _folder_from('DEEPLAB_ADE20K_SAMPLE_DIR')


@pytest.fixture(scope='session')
def sample_records(ade20k_sample_dir, tmp_path_factory):
  """The folder with TFRecords of the sample's validation pairs."""
  from deeplab.config import options
  from deeplab.data import builder
  folder = str(tmp_path_factory.mktemp('sample'))
  images, labels = (os.path.join(ade20k_sample_dir, kind, 'validation')
                    for kind in ('images', 'annotations'))
  builder.build([options.BuildOptions(
      split='val', image_folder=images, label_folder=labels,
      output_dir=folder)])
  return folder


@pytest.fixture(scope='session')
def ade20k_real_dir():
  """The folder with more real ADE20K pairs."""
  return _folder_from('DEEPLAB_ADE20K_REAL_DIR')


@pytest.fixture
def shallow(monkeypatch):
  """Makes the backbone shallow; see tests.shallow."""
  _shallow.make(monkeypatch.setattr)


@pytest.fixture(scope='module')
def shallow_module():
  """The same, for all tests of a module."""
  with pytest.MonkeyPatch.context() as patch:
    _shallow.make(patch.setattr)
    yield
