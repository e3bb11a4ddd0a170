// test_tile_trap.cu: the program's own AMX instructions, by traps where the CPU has none (tile_trap.h): the same numbers as the plain
// loops, bit for bit, and what a CPU would not take is found.
#include "products.h"
#include "test.h"
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#if defined(TILE_INSTRUCTIONS) && defined(__linux__) && !defined(__CUDACC__) && !defined(PRECISION_FP32)

static void require_traps() {
    if (tile_support() == TileSupport::Granted) SKIP("this CPU has the instructions");
    const bool trapped = trap_tiles();
    if (!trapped && tile_support() == TileSupport::Refused) SKIP("the kernel has tiles on, but doesn't give them: not every instruction traps");
    CHECK(trapped);
}

static std::vector<floatX> values(size_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<floatX> x;
    for (size_t i = 0; i < n; i++) x.push_back(to_floatX(normal(random)));
    return x;
}

TEST(trapped_products_are_the_loops_bit_for_bit) {
    require_traps();
    const Bf16Product before = bf16_product();
    const int sizes[][3] = {{1, 1, 1}, {33, 65, 129}, {70, 300, 512}, {257, 40, 1030}};
    for (auto [M, N, K] : sizes) {
        const std::vector<floatX> A = values((size_t)M * K, 1), B = values((size_t)N * K, 2);
        std::vector<floatX> C[2];
        std::vector<float> H[2];
        for (int which = 0; which < 2; which++) {
            bf16_product() = which ? Bf16Product::Tiles : Bf16Product::EmulatedTiles;
            const long traps = tile_traps();
            C[which].resize((size_t)M * N), H[which].assign((size_t)K * K, 0);
            gemm(C[which].data(), A.data(), B.data(), M, N, K);
            hessian_add(H[which].data(), A.data(), M, K);
            CHECK(which ? tile_traps() > traps : tile_traps() == traps);
        }
        bf16_product() = before;
        CHECK(memcmp(C[0].data(), C[1].data(), C[0].size() * sizeof(floatX)) == 0);
        CHECK(memcmp(H[0].data(), H[1].data(), H[0].size() * sizeof(float)) == 0);
    }
}

// Two tiles at strides of their own, loaded and stored by the instructions.
TEST(trapped_loads_and_stores_take_the_rows_that_they_name) {
    require_traps();
    std::vector<uint32_t> from(4096), to(4096, 7);
    for (size_t i = 0; i < from.size(); i++) from[i] = (uint32_t)i;
    tiles_begin<true>();
    tile_load<true, 3>(from.data() + 5, 400), tile_load<true, 7>(from.data(), 0);
    tile_store<true, 3>(to.data() + 11, 128), tile_store<true, 7>(to.data() + 2048, 64);
    tile_zero<true, 3>();
    tile_store<true, 3>(to.data() + 3000, 64);
    tiles_end<true>();
    for (int r = 0; r < TILE; r++)
        for (int k = 0; k < TILE; k++) {
            CHECK_EQ(to[11 + r * 32 + k], 5u + r * 100 + k);
            CHECK_EQ(to[11 + r * 32 + TILE + k], 7u);
            CHECK_EQ(to[2048 + r * TILE + k], (uint32_t)k);
            CHECK_EQ(to[3000 + r * TILE + k], 0u);
        }
}

// What a child process says when it runs `bad`, and how it ends.
static std::string last_words(void (*bad)()) {
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        bad();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char c;
    while (read(ends[0], &c, 1) == 1) said += c;
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    return said;
}

TEST(what_a_cpu_would_not_take_ends_the_process) {
    require_traps();
    CHECK(last_words([] { tile_zero<true, 0>(); }).find("by a thread that has not configured it") != std::string::npos);
    CHECK(last_words([] { tiles_begin<true>(), tiles_end<true>(), tile_zero<true, 0>(); }).find("not configured") !=
          std::string::npos);
    CHECK(last_words([] {
              tiles_begin<true>();
              asm volatile(".byte 0xc4, 0xe2, 0x6a, 0x5c, 0xc9");  // tdpbf16ps %tmm2, %tmm1, %tmm1, which an assembler refuses
          }).find("three different tiles") != std::string::npos);
    CHECK(last_words([] {
              alignas(64) uint8_t config[64] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64};
              asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
          }).find("expected eight tiles of 16 rows") != std::string::npos);
    last_words([] { asm volatile("ud2"); });  // not ours: as without a handler
}
#endif
