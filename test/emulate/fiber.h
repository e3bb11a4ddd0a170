// fiber.h: fibers, threads that take turns on one thread of the operating system: each has a stack and, while it does not run, the
// place where it goes on. A switch saves the registers that a function must keep (System V ABI, x86-64) on the one stack and takes
// them from the other: a few ns. Other machines switch with swapcontext, which makes a system call. AddressSanitizer is told of
// every switch, as its sanitizer/common_interface_defs.h asks.
//
// defines: Fiber, fiber_prepare, fiber_switch, EMULATE_ASAN
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#define EMULATE_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define EMULATE_ASAN 0
#endif

namespace emulated {

constexpr size_t FIBER_STACK = EMULATE_ASAN ? 256 << 10 : 64 << 10;

struct Fiber {
#ifdef __x86_64__
    void* sp = nullptr;  // where the registers lie
#else
    ucontext_t context;
#endif
    char* stack = nullptr;         // of FIBER_STACK bytes above a page that may not be touched; null: the stack of the OS thread
    const void* bottom = nullptr;  // what AddressSanitizer wants to know of a stack
    size_t size = 0;
    void* fake_stack = nullptr;
};

#ifdef __x86_64__
extern "C" void emulate_switch(void** save_sp, void* sp);
asm(".text\n"
    ".type emulate_switch, @function\n"
    "emulate_switch:\n"
    "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
    "    ret\n"
    ".size emulate_switch, . - emulate_switch\n");
#endif

// The fiber will begin with entry(), which never returns. `index` staggers the stacks, which would share lines of the cache.
inline void fiber_prepare(Fiber& fiber, void (*entry)(), size_t index) {
    const size_t page = 4096;
    if (!fiber.stack) {
        char* p =
            (char*)mmap(nullptr, FIBER_STACK + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) perror("emulated GPU: no memory for a stack"), abort();
        fiber.stack = p + page, fiber.bottom = fiber.stack, fiber.size = FIBER_STACK;
    }
#if EMULATE_ASAN
    __asan_unpoison_memory_region(fiber.stack, FIBER_STACK);  // frames that were given up
    fiber.fake_stack = nullptr;
#endif
#ifdef __x86_64__
    void** top = (void**)(fiber.stack + FIBER_STACK - 64 - index * 320 % page);  // a multiple of 16
    top[-1] = nullptr;                                                           // entry's return address
    top[-2] = (void*)entry;
    fiber.sp = top - 8;
    for (int i = 3; i <= 8; i++) top[-i] = nullptr;  // the six registers
#else
    (void)index;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack, fiber.context.uc_stack.ss_size = FIBER_STACK;
    makecontext(&fiber.context, entry, 0);
#endif
}

// Goes on with `to`; returns when another fiber switches back to `from`. A fiber that begins calls fiber_arrived first.
inline Fiber*& fiber_left() {
    static thread_local Fiber* left;  // the fiber that the last switch left
    return left;
}
inline void fiber_arrived([[maybe_unused]] void* fake_stack) {
#if EMULATE_ASAN
    Fiber* left = fiber_left();
    __sanitizer_finish_switch_fiber(fake_stack, &left->bottom, &left->size);
#endif
}
inline void fiber_switch(Fiber& from, Fiber& to) {
#if EMULATE_ASAN
    fiber_left() = &from;
    __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
#endif
#ifdef __x86_64__
    emulate_switch(&from.sp, to.sp);
#else
    swapcontext(&from.context, &to.context);
#endif
    fiber_arrived(from.fake_stack);
}

}  // namespace emulated
