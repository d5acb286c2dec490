"""Names that files and folders may have, for tests that give such names."""

# For the shell, a glob and an option; in UTF-8, and in no encoding at all.
ANY = ('-q\'"$(touch x) \n[1]*\u00e9 ',
       b'x\xff'.decode('utf-8', 'surrogateescape'))
# Python does not see to UTF-8 on its own.
ASCII_ENVIRONMENT = {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0',
                     'PYTHONUTF8': '0', 'PYTHONIOENCODING': ''}
