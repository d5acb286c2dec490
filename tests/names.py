"""Unusual names of files and folders."""

# With special characters of the shell, globs and options; not valid UTF-8.
ANY = ('-q\'"$(touch x) \n[1]*\u00e9 ',
       b'x\xff'.decode('utf-8', 'surrogateescape'))
# Keeps Python from switching to UTF-8.
ASCII_ENVIRONMENT = {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0',
                     'PYTHONUTF8': '0', 'PYTHONIOENCODING': ''}
