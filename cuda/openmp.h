// openmp.h: how long a CPU's threads spin when they have nothing to do.
//
// At the end of a parallel loop OpenMP's threads wait for the last of them, and for the next loop; they spin (libgomp some 10 ms,
// LLVM's library 200 ms) before they sleep. On a machine that others use too, the thread that all wait for is often one that waits
// for a core itself, and the spinning keeps it from one: two threads took longer than one. So libgomp's spin for some 50 us, which
// covers the gaps between the program's loops, and then sleep; LLVM's, which count in whole ms, sleep at once.
//
// defines: spin_briefly
#pragma once
#include <cstdlib>
#include <initializer_list>
#include <sys/auxv.h>
#include <unistd.h>

// To be called first in main. libgomp reads its environment before main begins, so the program starts itself once more with the
// bound in it; what the user has set stands. Where that can't be done, it goes on as it is.
inline void spin_briefly(char** argv) {
    for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
        if (getenv(name)) return;
    if (getauxval(AT_BASE) == 0) return;  // started by way of the loader, which /proc/self/exe then is
    setenv("GOMP_SPINCOUNT", "1000", 1);  // turns
    setenv("KMP_BLOCKTIME", "0", 1);      // ms
    char program[4096];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return;
    program[n] = 0;  // by its own name, which is what ps and killall know it by
    execv(program, argv);
}
