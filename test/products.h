// products.h: a test that runs once for each way in which this build and machine can multiply bf16 (cuda/amx.h); AMX's tiles, where
// there are none, as plain loops and by traps.
//
// defines: products_here, traps_for_tiles, loops_for_tiles, TEST_ON_EVERY_PRODUCT
#pragma once
#include "../cuda/gemm.cuh"
#include "test.h"

#if defined(__CUDACC__) || defined(PRECISION_FP32)

inline void on_every_product(void (*test)()) { test(); }
inline bool traps_for_tiles() { return false; }
inline bool loops_for_tiles() { return false; }

#else

#include "tile_trap.h"

inline std::vector<Bf16Product> products_here() {
    std::vector<Bf16Product> all = {Bf16Product::Widened, Bf16Product::EmulatedTiles};
#ifdef BF16_PAIRS
    all.push_back(Bf16Product::Pairs);
#endif
    if (tile_support() == TileSupport::Granted || trap_tiles()) all.push_back(Bf16Product::Tiles);
    return all;
}

// Is this a slow one, for which a test leaves its largest cases out? Traps are slower than loops.
inline bool traps_for_tiles() { return bf16_product() == Bf16Product::Tiles && tile_support() != TileSupport::Granted; }
inline bool loops_for_tiles() { return bf16_product() == Bf16Product::EmulatedTiles || traps_for_tiles(); }

inline void on_every_product(void (*test)()) {
    struct Restore {
        Bf16Product before = bf16_product();
        ~Restore() { bf16_product() = before; }
    } restore;
    for (Bf16Product product : products_here()) {
        bf16_product() = product;
        try {
            test();
        } catch (const TestSkip&) {
            throw;
        } catch (const std::exception& e) {
            throw TestFailure(std::string(bf16_product_text()) + ": " + e.what());
        }
    }
}

#endif

#define TEST_ON_EVERY_PRODUCT(name)                                                                                    \
    static void name##_once();                                                                                         \
    TEST(name) { on_every_product(name##_once); }                                                                      \
    static void name##_once()
