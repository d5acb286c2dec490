"""Any JSON, and anything else, in place of the suite's own JSON files."""
import json
import math

from hypothesis import strategies
import pytest

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.config import options
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.evaluation import report
from tests import fuzz

pytestmark = pytest.mark.extended

NUMBERS = strategies.one_of(
    strategies.integers(), strategies.floats(), strategies.sampled_from([
        0, -1, 2 ** 63, 10 ** 400, 1e308, float('nan'), float('inf'),
        -float('inf'), True, 0.5]))
VALUES = strategies.recursive(
    strategies.none() | NUMBERS | strategies.text(max_size=5),
    lambda inner: strategies.lists(inner, max_size=4) |
    strategies.dictionaries(strategies.text(max_size=5), inner, max_size=4),
    max_leaves=8)


def almost(content):
  """Returns a strategy of dicts with some values of `content` replaced."""
  return strategies.builds(
      lambda changes, left_out: dict(
          {name: value for name, value in content.items()
           if name not in left_out}, **changes),
      strategies.dictionaries(
          strategies.sampled_from(sorted(content)), VALUES, max_size=3),
      strategies.sets(strategies.sampled_from(sorted(content)), max_size=1))


def files(*contents):
  """Returns a strategy of the bytes of files with such values."""
  values = strategies.one_of(VALUES, *contents)
  texts = values.map(json.dumps)
  cut = strategies.builds(lambda text, length: text[:length], texts,
                          strategies.integers(0, 300))
  nested = strategies.integers(1, 10 ** 5).map(lambda depth: '[' * depth)
  return strategies.one_of(
      texts, texts, cut, nested, strategies.text()).map(
          lambda text: text.encode('utf-8', 'surrogatepass')) | (
              strategies.binary(max_size=20))


MODEL = options.to_json(options.ModelOptions(decoder_output_stride=(4,)))
MODEL_FILES = files(almost(MODEL).flatmap(lambda model: almost({
    'model': model, 'optimizer': 'adam'})))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('fuzz')


@fuzz.given(content=MODEL_FILES, examples=150)
def test_options_of_a_model(folder, content):
  (folder / constants.MODEL_OPTIONS_FILE).write_bytes(content)
  try:
    model_options, optimizer, recipe = compatibility.read_options(str(folder))
  except InputError:
    return
  assert optimizer in (None, 'adam', 'momentum')
  # Valid options are written and read back unchanged.
  compatibility.write_options(
      str(folder), model_options, optimizer=optimizer, recipe=recipe)
  assert compatibility.read_options(str(folder)) == (
      model_options, optimizer, recipe)


@fuzz.given(content=files(almost({'split': 'val', 'geometry': 'x'})),
            examples=150)
def test_manifests(folder, content):
  (folder / constants.PREPROCESSED_MANIFEST).write_bytes(content)
  try:
    manifest = png_folder.read_manifest(str(folder))
  except InputError:
    return
  assert all(isinstance(manifest.get(name, ''), str)
             for name in ('split', 'geometry'))


@fuzz.given(content=files(almost({
    'miou': 0.5, 'pixel_accuracy': 0.25, 'images': 3, 'seconds': 1.5})),
            examples=150)
def test_reports(folder, content):
  path = folder / 'report.json'
  path.write_bytes(content)
  try:
    found = report.read(str(path))
  except InputError:
    return
  assert found.images >= 0 and 0 <= found.seconds < math.inf
  assert all(math.isnan(score) or 0 <= score <= 1
             for score in (found.scores.miou, found.scores.pixel_accuracy))
  assert report.stage_table([('stage', str(path))])
