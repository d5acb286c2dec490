/* Hides AVX-512 from a program; preload this library on Linux, x86-64.
 *
 *     gcc -O2 -fPIC -shared -o without_avx512.so tests/without_avx512.c -ldl
 *     LD_PRELOAD=$PWD/without_avx512.so ./scripts/test.sh
 *
 * Libraries choose their kernels by the instruction cpuid. Linux can make it
 * raise SIGSEGV (cpuid_fault in /proc/cpuinfo). The handler below runs the
 * instruction, clears the bits of AVX-512 and of extensions that need it, and
 * continues after it. Child processes load this library too, through the
 * environment.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

/* Bits of leaf 7: AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL in EBX; VBMI, VBMI2,
 * VNNI, BITALG, VPOPCNTDQ in ECX; 4VNNIW, 4FMAPS, VP2INTERSECT, AMX-BF16,
 * AVX512-FP16, AMX-TILE, AMX-INT8 in EDX. Subleaf 1: AVX-VNNI and AVX512-BF16
 * in EAX. */
static const uint32_t kEbx7 = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 |
                              1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const uint32_t kEcx7 = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const uint32_t kEdx7 = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 |
                              1u << 23 | 1u << 24 | 1u << 25;
static const uint32_t kEax7Subleaf1 = 1u << 4 | 1u << 5;

static struct sigaction others;  /* the program's own action on SIGSEGV */
typedef int (*Sigaction)(int, const struct sigaction *, struct sigaction *);

/* Looked up at each use, because libraries may call it before `hide` runs. */
static int real_sigaction(int number, const struct sigaction *new,
                          struct sigaction *old) {
  return ((Sigaction)dlsym(RTLD_NEXT, "sigaction"))(number, new, old);
}

static void emulate_cpuid(ucontext_t *context) {
  greg_t *registers = context->uc_mcontext.gregs;
  uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX];
  uint32_t eax, ebx, ecx, edx;
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  __asm__ volatile("cpuid"
                   : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx)
                   : "0"(leaf), "2"(subleaf));
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  if (leaf == 7 && subleaf == 0) {
    ebx &= ~kEbx7;
    ecx &= ~kEcx7;
    edx &= ~kEdx7;
  } else if (leaf == 7 && subleaf == 1) {
    eax &= ~kEax7Subleaf1;
  }
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += 2;
}

static void on_fault(int number, siginfo_t *info, void *raw) {
  ucontext_t *context = raw;
  const uint8_t *code = (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];
  /* A fault with an address comes from a wild pointer, not from cpuid. */
  if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
    emulate_cpuid(context);
  } else if (others.sa_flags & SA_SIGINFO) {
    others.sa_sigaction(number, info, raw);
  } else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN) {
    others.sa_handler(number);
  } else {
    signal(number, SIG_DFL);
    raise(number);
  }
}

/* Our handler calls the program's own one (Python's faulthandler). */
int sigaction(int number, const struct sigaction *new,
              struct sigaction *old) {
  if (number != SIGSEGV) {
    return real_sigaction(number, new, old);
  }
  if (old) {
    *old = others;
  }
  if (new) {
    others = *new;
  }
  return 0;
}

__attribute__((constructor)) static void hide(void) {
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  real_sigaction(SIGSEGV, &ours, NULL);
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
    fputs("without_avx512: this processor or kernel cannot trap cpuid\n",
          stderr);
    _exit(2);
  }
}
