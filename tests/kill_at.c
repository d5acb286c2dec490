// Kills a script and its children just before a chosen call that changes a
// folder, as kill -9 does.
//
// Calls below FAULTS_ROOT count, whether from Python, TensorFlow, mv or rm. Each
// adds a line to FAULTS_FOLDER/calls; without this file nothing is done.
// FAULTS_FOLDER/kill_at has the number of the call. tests/faults.py compiles it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE 256

static void point(const char *call, const char *path) {
  const char *folder = getenv("FAULTS_FOLDER"), *root = getenv("FAULTS_ROOT");
  char name[4096], line[LINE + 1], wanted[32] = "";
  int before = errno, file;
  off_t end;
  if (!folder || !root || (path[0] == '/' && strncmp(path, root, strlen(root))))
    return;
  snprintf(name, sizeof name, "%s/calls", folder);
  file = open(name, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) {
    errno = before;
    return;
  }
  snprintf(line, sizeof line, "%-9s %-*.*s\n", call, LINE - 11, LINE - 11, path);
  if (write(file, line, LINE) != LINE) abort();
  end = lseek(file, 0, SEEK_CUR);
  close(file);
  snprintf(name, sizeof name, "%s/kill_at", folder);
  file = open(name, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    if (read(file, wanted, sizeof wanted - 1) > 0 && end / LINE == atol(wanted)) {
      kill(0, SIGKILL);
      for (;;) pause();
    }
    close(file);
  }
  errno = before;
}

#define WRAP(name, path, parameters, arguments)            \
  int name parameters {                                    \
    int (*real) parameters = dlsym(RTLD_NEXT, #name);      \
    point(#name, path);                                    \
    return real arguments;                                 \
  }
WRAP(rename, to, (const char *from, const char *to), (from, to))
WRAP(renameat, to, (int a, const char *from, int b, const char *to),
     (a, from, b, to))
WRAP(renameat2, to,
     (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags))
WRAP(mkdir, path, (const char *path, mode_t mode), (path, mode))
WRAP(mkdirat, path, (int a, const char *path, mode_t mode), (a, path, mode))
WRAP(rmdir, path, (const char *path), (path))
WRAP(unlink, path, (const char *path), (path))
WRAP(unlinkat, path, (int a, const char *path, int flags), (a, path, flags))
