"""Tests scripts/compare_models.py: its page and its files."""
import json
import os
import re
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
from PIL import Image
import pytest

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.evaluation import visualize
from deeplab.tools.comparison import run
from tests import scripts
from tests import small_models

pytestmark = pytest.mark.modern

SKY, TREE, GRASS = 3, 5, 10
NAMES = ['first', 'a <b>$1']
# Names of Chromium in Debian, Ubuntu and others.
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """Writes two models; if green is largest, they predict grass and tree."""
  folder = tmp_path_factory.mktemp('models')
  return list(zip(NAMES, (
      small_models.write_graph(folder / 'a.pb', classes=(0, GRASS, SKY)),
      small_models.write_graph(folder / 'b.pb', classes=(0, TREE, SKY)))))


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """Writes three pairs; in image n, 10 n of the 33 rows are grass."""
  folder = tmp_path_factory.mktemp('pairs')
  for kind in ('images', 'annotations'):
    (folder / kind).mkdir()
  for number in range(3):
    label = np.full(small_models.SIZE, SKY, np.uint8)
    label[:10 * number] = GRASS
    image = np.where(label[..., np.newaxis] == GRASS, (9, 200, 9), (9, 9, 200))
    for kind, pixels in (('images', image), ('annotations', label)):
      Image.fromarray(pixels.astype(np.uint8)).save(
          str(folder / kind / 'img_{}.png'.format(number)))
  return str(folder)


@pytest.fixture(scope='module')
def made(models, pairs, tmp_path_factory):
  """The folder of a finished comparison."""
  folder = str(tmp_path_factory.mktemp('made') / 'comparison')
  compare(models, folder, test_dir=pairs)
  return folder


def compare(models, folder, **options):
  return run.compare(models, options_lib.ComparisonOptions(
      output_dir=str(folder), resamples=50, **options))


def read(*path):
  with open(os.path.join(*map(str, path)), encoding='utf-8') as text:
    return text.read()


def test_numbers(made):
  numbers = json.loads(read(made, run.NUMBERS))
  # 30 of the 33 rows of 3 images differ.
  assert numbers['all_agree']['value'] == pytest.approx(69 / 99)
  first, second = (numbers['scores'][name] for name in NAMES)
  assert first['miou']['value'] == 1
  assert second['pixel_accuracy']['value'] == pytest.approx(69 / 99)
  assert second['difference_to_the_first']['miou']['value'] < 0
  assert [image['differing'] for image in numbers['by_image']] == (
      pytest.approx([0, 10 / 33, 20 / 33]))
  assert [model['kind'] for model in numbers['models']] == 2 * ['frozen graph']


def test_the_page_is_complete(made):
  page = read(made, run.PAGE)
  for attribute in ('src', 'href'):
    for target in re.findall(r'\b{}="([^"]*)"'.format(attribute), page):
      assert target.startswith('data:') or os.path.isfile(
          os.path.join(made, target)), target
  # A browser may load nothing from outside the page.
  assert "default-src 'none'; img-src data:" in page
  assert not re.search(r'https?:|@import|url\(', page)
  # For three images: the image, its label, both models and the difference.
  assert len(re.findall('<figure>', page)) == 3 * 5
  for title in ('Scores', 'Agreement of pixels', 'IoU by class',
                'Images that differ most', 'Confusion matrices', 'All images'):
    assert '<h2>{}</h2>'.format(title) in page
  assert 'The published figures are mIoU for checkpoints and graphs' in page
  assert '3 images are noise' in page and 'too few images' in page
  # The finding comes first: grass is never found, and tree never occurs.
  numbers = json.loads(read(made, run.NUMBERS))
  sentence = re.search('</h1>\n<p class="finding">(.*?)</p>', page).group(1)
  assert sentence == (
      'a &lt;b&gt;$1 has 0.6667 less mIoU than first (too few images), driven '
      'by tree (50 % of it), grass (50 % of it); they agree on 69.70 % of the '
      'pixels.')
  assert '5 tree</span></td><td class="number" data-key="0.0">0.00 %' in page
  for model in numbers['models']:
    assert '{:,}</td>'.format(os.path.getsize(model['path'])) in page
    assert model['sha256'] in page
  # Names are escaped.
  assert '<b>' not in page and 'a &lt;b&gt;$1' in page


def test_pictures_beside_the_page(made):
  assert sorted(os.listdir(made)) == [
      'charts', 'comparison.json', 'images', 'index.html']
  assert sorted(os.listdir(os.path.join(made, 'images'))) == [
      '001.png', '002.png', '003.png']
  assert sorted(os.listdir(os.path.join(made, 'charts'))) == [
      'confusion_1.png', 'confusion_2.png', 'iou.png', 'iou_differences.png',
      'scores.png']
  for folder, _, names in os.walk(made):
    for name in names:
      if name.endswith('.png'):
        with Image.open(os.path.join(folder, name)) as picture:
          picture.load()


def test_a_link_to_a_folder_gets_an_equal_page(
    models, pairs, made, tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  compare(models, tmp_path / 'link', test_dir=pairs)
  assert read(tmp_path, 'real', run.PAGE) == read(made, run.PAGE)
  assert (tmp_path / 'link').is_symlink()


def test_only_an_earlier_comparison_is_replaced(
    models, pairs, tmp_path, monkeypatch):
  folder = tmp_path / 'comparison'
  compare(models, folder, test_dir=pairs)
  mine = [folder / 'notes.txt', folder / 'images' / 'mine.png',
          folder / 'charts' / 'confusion_mine.png', folder / 'pre' / 'x']
  mine[-1].parent.mkdir()
  for path in mine:
    path.write_text('mine')
  monkeypatch.chdir(str(folder))
  result = compare(models, '.', test_dir=pairs, most_different=1)
  assert result.page_bytes == os.path.getsize(result.page)
  assert [path.read_text() for path in mine] == ['mine'] * len(mine)
  assert sorted(os.listdir(str(folder / 'images'))) == ['001.png', 'mine.png']


@pytest.mark.parametrize('name', [run.NUMBERS, run.PAGE, 'images/001.png'])
def test_foreign_files_are_refused_before_any_work(
    models, pairs, tmp_path, name):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_text('{"my": "numbers"}')
  with pytest.raises(InputError, match='holds {}, which no earlier run'.format(
      name)):
    compare(models, tmp_path, test_dir=pairs)
  assert path.read_text() == '{"my": "numbers"}'


def test_inputs_are_not_written_to(models, pairs, tmp_path, monkeypatch):
  shutil.copytree(pairs, str(tmp_path / 'pairs'))
  monkeypatch.chdir(str(tmp_path))
  for output in ('pairs', 'pairs/images/..', 'pairs/images'):
    with pytest.raises(InputError, match='is an input of this command'):
      compare(models, output, pictures='pairs/images')
  compare(models, 'made', pictures='pairs/images')
  with pytest.raises(InputError,
                     match='made/images is an input of this command'):
    compare(models, 'made', pictures='made/images')


@pytest.mark.slow
def test_the_script_compares_pictures_without_labels(models, pairs, tmp_path):
  arguments = ['--model={}={}'.format(*model) for model in models] + [
      '--pictures=' + os.path.join(pairs, 'images'),
      '--output_dir={}'.format(tmp_path / 'made')]
  done = scripts.run('scripts/compare_models.py', '--resamples=20', *arguments)
  assert 'all models agree on 0.69' in done.stdout
  assert '3 images are noise' in done.stdout and 'mIoU' not in done.stdout
  page = read(tmp_path / 'made', run.PAGE)
  assert 'IoU by class' not in page and 'Agreement of pixels' in page
  assert 'scores' not in json.loads(read(tmp_path / 'made', run.NUMBERS))
  line = scripts.refusal('scripts/compare_models.py', *arguments[1:])
  assert '--model is required twice or more' in line
  line = scripts.refusal('scripts/compare_models.py', *arguments,
                         '--preprocessed_dataset_dir=' + pairs)
  assert ('images from --preprocessed_dataset_dir and --pictures; expected '
          'one of --dataset_dir, ') in line


def test_models_of_two_sizes_are_refused(models, pairs, tmp_path):
  other = small_models.write_graph(tmp_path / 'c.pb', (1, 65, 65, 3))
  with pytest.raises(InputError, match='c.pb: takes images of 65x65, but .*'
                     'b.pb of 33x33; expected models of one size'):
    compare(models + [('c', other)], tmp_path / 'made', test_dir=pairs)


def own_models(folder, *label_maps):
  """Writes models with own classes; for green, one predicts 1, the next 2."""
  made = []
  for number, label_map in enumerate(label_maps):
    path = folder / 'own{}.pb'.format(number)
    small_models.write_graph(path, classes=(0, 1 + number % 2, 2 - number % 2))
    small_models.describe(path, label_map)
    made.append(('model {}'.format(number), str(path)))
  return made


def test_the_page_shows_own_classes(pairs, tmp_path, monkeypatch):
  own = small_models.OWN
  legend = mock.Mock(wraps=visualize.legend)
  monkeypatch.setattr(visualize, 'legend', legend)
  given = tmp_path / 'pairs'
  shutil.copytree(pairs, str(given))
  for path in (given / 'annotations').iterdir():
    labels = np.asarray(Image.open(str(path)))
    Image.fromarray(np.where(labels == GRASS, 1, 2).astype(np.uint8)).save(
        str(path))
  compare(own_models(tmp_path, own, own), tmp_path / 'made',
          test_dir=str(given), most_different=1)
  page = read(tmp_path, 'made', run.PAGE)
  # Only the names and colours of these classes are shown, not ADE20K's.
  assert set(re.findall(
      '<td[^>]*><span class="class"><span class="swatch" '
      'style="background:(.*?)"></span>(.*?)</span>', page)) == {
          ('#{:02x}{:02x}{:02x}'.format(*visualize.shade(
              index, label_map=own)), name)
          for index, name in ((1, '1 built'), (2, '2 a &lt;way&gt;'))}
  assert 'classes 1 to 2, divided by 2' in page
  assert 'are not labelled' not in page and (
      'The published figures' not in page)
  assert [call[0][2] for call in legend.call_args_list] == [own]


def test_models_of_different_classes_are_refused(pairs, tmp_path):
  own, other = small_models.OWN, small_models.OTHER
  models = own_models(tmp_path, own, other)
  with pytest.raises(InputError) as error:
    compare(models, tmp_path / 'made', test_dir=pairs)
  assert str(error.value) == (
      '{}: id 2 is 1 built, but 2 a <way> by {}; expected the same '
      'classes'.format(models[0][1], models[1][1]))
  assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('package', ['matplotlib', 'jinja2'])
def test_a_missing_package_is_named(
    models, pairs, tmp_path, monkeypatch, package):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(InputError, match='needs the package ' + package):
    compare(models, tmp_path / 'made', test_dir=pairs)
  assert not os.path.exists(str(tmp_path / 'made'))


# --- In a browser ----------------------------------------------------------

# A window as narrow as a phone's; Chromium's own has at least 500 pixels.
PHONE = """<iframe src="probed.html" width="420" height="900"></iframe>
<script>onmessage = event => { document.title = event.data; };</script>"""
# Clicks on table heads; finds broken pictures and a page that is too wide.
PROBE = """<script>
window.addEventListener('load', () => {
  const table = [...document.querySelectorAll('h2')].find(
    title => title.textContent === 'All images'
  ).nextElementSibling.querySelector('table');
  const orders = [1, 1, 0].map(place => {
    table.querySelectorAll('th button')[place].click();
    return [...table.tBodies[0].rows].map(
      row => row.children[place].textContent);
  });
  parent.postMessage(JSON.stringify({
    orders: orders,
    scrolls: document.documentElement.scrollWidth >
      document.documentElement.clientWidth,
    broken: [...document.images].filter(
      image => !image.complete || !image.naturalWidth).length}), '*');
});
</script></body>"""


@pytest.mark.extended
def test_a_browser_shows_the_page(made, tmp_path):
  browser = next(filter(None, map(shutil.which, BROWSERS)), None)
  if not browser:
    pytest.skip('no Chromium here: apt-get install chromium')
  (tmp_path / 'probed.html').write_text(
      read(made, run.PAGE).replace('</body>', PROBE).replace(
          'loading="lazy"', ''), encoding='utf-8')
  (tmp_path / 'phone.html').write_text(PHONE)
  done = subprocess.run(
      [browser, '--headless=new', '--no-sandbox', '--disable-gpu',
       '--disable-dev-shm-usage', '--enable-logging=stderr',
       '--user-data-dir={}'.format(tmp_path / 'profile'),
       '--window-size=500,900', '--virtual-time-budget=10000', '--dump-dom',
       'file://{}'.format(tmp_path / 'phone.html')],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
      encoding='utf-8', errors='replace', check=True)
  assert 'CONSOLE' not in done.stderr  # such as a blocked resource
  found = json.loads(re.search('<title>(.*?)</title>', done.stdout).group(1))
  shares = ['60.61 %', '30.30 %', '0.00 %']
  assert found == {
      'orders': [shares, shares[::-1],
                 ['img_0.png', 'img_1.png', 'img_2.png']],
      'scrolls': False, 'broken': 0}
