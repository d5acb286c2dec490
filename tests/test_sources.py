"""What holds for every source file of the suite."""
import glob
import os
import re

import pytest

from tests import scripts

SOURCES = sorted(
    os.path.relpath(path, scripts.REPOSITORY)
    for path in glob.glob(os.path.join(scripts.REPOSITORY, 'deeplab', '**',
                                       '*.py'), recursive=True) +
    glob.glob(os.path.join(scripts.REPOSITORY, '*.py')))


@pytest.mark.parametrize('path', SOURCES)
def test_parity_names_what_it_is_with(path):
  """A file and, after it, a symbol or what it does there."""
  with open(os.path.join(scripts.REPOSITORY, path), encoding='utf-8') as source:
    text = source.read()
  for match in re.finditer(r'Parity:', text):
    following = re.sub(r'\s*\n\s*(# )?', ' ', text[match.start():][:400])
    assert re.match(r'Parity: .{,120}?[\w/]+\.py\b', following), following
