"""Files that have their name only once they are complete."""
import os

import pytest

from deeplab import files

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def test_nothing_has_its_name_before_the_end(tmp_path):
  paths = [str(tmp_path / name) for name in ('a', 'b')]
  (tmp_path / 'b').write_text('old')
  with files.replacing(*paths) as temporaries:
    for temporary in temporaries:
      with open(temporary, 'w') as out:
        out.write('new')
    assert [files.wanted_name(path) for path in temporaries] == paths
    assert not (tmp_path / 'a').exists()
    assert (tmp_path / 'b').read_text() == 'old'
  assert sorted(os.listdir(str(tmp_path))) == ['a', 'b']
  assert (tmp_path / 'a').read_text() == (tmp_path / 'b').read_text() == 'new'


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
  (tmp_path / 'b').write_text('old')
  with pytest.raises(OSError, match='disk full'):
    with files.replacing(*[
        str(tmp_path / name) for name in 'abc']) as temporaries:
      os.mkdir(temporaries[0])
      with open(os.path.join(temporaries[0], 'inside'), 'w') as out:
        out.write('half')
      with open(temporaries[1], 'w') as out:
        out.write('half')
      raise OSError('disk full')
  assert os.listdir(str(tmp_path)) == ['b']
  assert (tmp_path / 'b').read_text() == 'old'


def test_json_is_sorted_and_ends_its_last_line(tmp_path):
  files.write_json(str(tmp_path / 'x.json'), {'b': [1], 'a': 'é'})
  assert (tmp_path / 'x.json').read_bytes() == (
      b'{\n  "a": "\\u00e9",\n  "b": [\n    1\n  ]\n}\n')
  files.write_text(str(tmp_path / 'x.txt'), 'é')
  assert (tmp_path / 'x.txt').read_bytes() == b'\xc3\xa9'


def test_other_names_are_left_as_they_are():
  assert files.wanted_name('img_9.png.77.tmp') == 'img_9.png'
  assert files.wanted_name('img_9.png') == 'img_9.png'
  assert files.wanted_name('notes.tmp') == 'notes.tmp'
