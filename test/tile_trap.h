// tile_trap.h: AMX's instructions on a CPU without them. There each raises SIGILL; the handler reads which it was from its bytes, does
// what it says to tiles of its own, and goes on behind it. So the program's own instructions run everywhere, and not only the plain loops
// that stand for them (cuda/amx.h): their operands, strides and order, the configuration, and that no thread uses a tile without one.
// What this cannot show is their speed and whether Linux grants them.
//
// Encodings: Intel SDM, volume 2, of LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED and TDPBF16PS. What the manual forbids (#UD,
// #GP) ends the process with a sentence.
//
// defines: trap_tiles, tile_traps
#pragma once
#include "../cuda/amx.h"

#if defined(TILE_INSTRUCTIONS) && defined(__linux__)
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>

// Instructions that were trapped, of all threads.
inline std::atomic<long>& tile_traps() {
    static std::atomic<long> n{0};
    return n;
}

struct TrappedTiles {
    bool configured = false;
    uint32_t word[8][TILE][TILE];
};
inline TrappedTiles& trapped_tiles() {
    static thread_local TrappedTiles tiles;
    return tiles;
}

[[noreturn]] inline void tile_fault(const char* what) {
    fprintf(stderr, "tile_trap.h: %s\n", what);
    abort();
}

// A VEX instruction of map 0F38 with L = W = 0, which all of AMX's are.
struct VexInstruction {
    int opcode, prefix, reg, vvvv, mod, rm, length;  // prefix: 0 none, 1 66, 2 F3, 3 F2
    char* base;                                      // of an operand in memory: base + displacement,
    long long index;                                 // and index * scale
};

inline bool decode_vex(const uint8_t* p, const greg_t* registers, VexInstruction& i) {
    static const int number[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || (p[2] & 0x84) != 0) return false;
    const int R = ~p[1] >> 7 & 1, X = ~p[1] >> 6 & 1, B = ~p[1] >> 5 & 1;
    i.vvvv = ~p[2] >> 3 & 15, i.prefix = p[2] & 3, i.opcode = p[3];
    i.mod = p[4] >> 6, i.reg = (p[4] >> 3 & 7) | R << 3, i.rm = (p[4] & 7) | B << 3, i.length = 5;
    i.base = nullptr, i.index = 0;
    if (i.mod == 3) return true;
    int base = i.rm;
    if ((p[4] & 7) == 4) {
        const int sib = p[i.length++], index = (sib >> 3 & 7) | X << 3;
        base = (sib & 7) | B << 3;
        if (index != 4) i.index = registers[number[index]] << (sib >> 6);
    }
    if (i.mod == 0 && (base & 7) == 5) return false;  // an address that no register holds: not made here
    int32_t displacement = i.mod == 1 ? (int8_t)p[i.length] : 0;
    if (i.mod == 2) memcpy(&displacement, p + i.length, 4);
    i.length += i.mod == 1 ? 1 : i.mod == 2 ? 4 : 0;
    i.base = (char*)registers[number[base]] + displacement;
    return true;
}

inline void configure_tiles(TrappedTiles& tiles, const uint8_t* config /*[64]*/) {
    if (config[0] != 1 || config[1] != 0) tile_fault("ldtilecfg: expected palette 1 and start row 0");
    for (int b = 2; b < 64; b++) {
        const bool rows = b >= 48 && b < 56, bytes = b >= 16 && b < 32;  // 64 bytes a row, 16 rows, eight tiles
        if (config[b] != (rows ? TILE : bytes && b % 2 == 0 ? 64 : 0))
            tile_fault("ldtilecfg: expected eight tiles of 16 rows of 64 bytes");
    }
    tiles.configured = true;
    memset(tiles.word, 0, sizeof tiles.word);
}

// Does what the instruction says; false: it is none of AMX's.
inline bool run_tile_instruction(const VexInstruction& i) {
    TrappedTiles& tiles = trapped_tiles();
    const bool memory = i.mod != 3;
    if (i.opcode == 0x49 && i.prefix == 0 && memory && i.reg == 0) return configure_tiles(tiles, (const uint8_t*)i.base), true;
    if (i.opcode == 0x49 && i.prefix == 0 && !memory && i.reg == 0 && i.rm == 0) return tiles.configured = false, true;
    const bool zero = i.opcode == 0x49 && i.prefix == 3 && !memory && i.rm == 0;
    const bool load = i.opcode == 0x4b && i.prefix == 3 && memory, store = i.opcode == 0x4b && i.prefix == 2 && memory;
    const bool dot = i.opcode == 0x5c && i.prefix == 2 && !memory;
    if (!zero && !load && !store && !dot) return false;
    if (!tiles.configured) tile_fault("a tile is used by a thread that has not configured it");
    if (i.reg > 7 || (dot && (i.rm > 7 || i.vvvv > 7))) tile_fault("there are eight tiles");
    if (dot && (i.reg == i.rm || i.reg == i.vvvv || i.rm == i.vvvv)) tile_fault("tdpbf16ps: expected three different tiles");
    auto& tile = tiles.word[i.reg];
    if (zero) memset(tile, 0, sizeof tile);
    for (int r = 0; r < TILE && load; r++) memcpy(tile[r], i.base + r * i.index, sizeof tile[r]);
    for (int r = 0; r < TILE && store; r++) memcpy(i.base + r * i.index, tile[r], sizeof tile[r]);
    if (dot) plain_dot(tile, tiles.word[i.rm], tiles.word[i.vvvv]);
    return true;
}

inline void on_illegal_instruction(int, siginfo_t*, void* context) {
    greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
    VexInstruction i;
    if (!decode_vex((const uint8_t*)registers[REG_RIP], registers, i) || !run_tile_instruction(i)) {
        signal(SIGILL, SIG_DFL);  // none of ours: it is raised again, and ends the process
        return;
    }
    registers[REG_RIP] += i.length;
    tile_traps()++;
}

// From here on a CPU without tiles has them by traps. False where not all of AMX's instructions are illegal: the CPU has them (which to ask
// first is the caller's), or the kernel has tiles on but doesn't give them, so that they are configured silently and stop at the first use.
inline bool trap_tiles() {
    static const bool trapped = [] {
        struct sigaction action = {}, before;
        action.sa_sigaction = on_illegal_instruction, action.sa_flags = SA_SIGINFO;
        if (sigaction(SIGILL, &action, &before) != 0) return false;
        const long traps = tile_traps();
        tiles_begin<true>();
        const bool configuring_traps = tile_traps() > traps;
        tiles_end<true>();
        if (!configuring_traps) sigaction(SIGILL, &before, nullptr);
        return configuring_traps;
    }();
    return trapped;
}
#else
inline bool trap_tiles() { return false; }
#endif
