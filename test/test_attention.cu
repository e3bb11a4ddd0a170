// test_attention.cu: attention over a token trie against a float64 loop over each query's ancestors.
#include "../cuda/attention.cuh"
#include "products.h"
#include "test.h"
#include <array>
#include <functional>
#include <random>

// A chunk with random q, k, v.
struct Problem {
    std::vector<Segment> segments;
    int T, H, KV, D;
    std::vector<floatX> qkv;  // [T, H + 2 KV, D]
    int p_bits = 16;

    int stride() const { return (H + 2 * KV) * D; }
    floatX& q(int t, int h, int d) { return qkv[(size_t)t * stride() + h * D + d]; }
    floatX& k(int t, int g, int d) { return qkv[(size_t)t * stride() + (H + g) * D + d]; }
    floatX& v(int t, int g, int d) { return qkv[(size_t)t * stride() + (H + KV + g) * D + d]; }
    int segment_of(int t) const {
        int s = 0;
        while (t >= segments[s].start + segments[s].len) s++;
        return s;
    }
    bool sees(int t, int key) const {
        int s = segment_of(t);
        if (key >= segments[s].start && key <= t) return true;
        for (s = segments[s].parent; s >= 0; s = segments[s].parent)
            if (key >= segments[s].start && key < segments[s].start + segments[s].len) return true;
        return false;
    }
    // The tokens that t sees, in the order of the text.
    std::vector<int> keys(int t) const {
        std::vector<int> found;
        int end = t + 1;
        for (int s = segment_of(t); s >= 0; s = segments[s].parent) {
            if (segments[s].start + segments[s].len <= t) end = segments[s].start + segments[s].len;
            for (int key = end - 1; key >= segments[s].start; key--) found.push_back(key);
        }
        std::reverse(found.begin(), found.end());
        return found;
    }
};

// lens and parents of the segments -> the segments.
static std::vector<Segment> make_segments(const std::vector<std::pair<int, int>>& len_and_parent) {
    std::vector<Segment> segments;
    int start = 0;
    for (auto [len, parent] : len_and_parent) {
        const int pos = parent < 0 ? 0 : segments[parent].pos + segments[parent].len;
        segments.push_back({start, len, parent, pos});
        start += len;
    }
    return segments;
}

static Problem make_problem(const std::vector<std::pair<int, int>>& len_and_parent, int H, int KV, int D, float sharpness = 1) {
    Problem p = {make_segments(len_and_parent), 0, H, KV, D, {}};
    for (const Segment& s : p.segments) p.T += s.len;
    p.qkv.resize((size_t)p.T * p.stride());
    std::mt19937 random(1);
    for (size_t i = 0; i < p.qkv.size(); i++) {
        const float x = (float)((int)(random() >> 8) - (1 << 23)) / (1 << 23) * 1.7320508f;  // variance 1
        p.qkv[i] = to_floatX((int)(i % p.stride()) < H * D ? x * sharpness : x);
    }
    return p;
}

static std::vector<floatX> run(const Problem& p) {
    const AttentionPlan plan = attention_plan(p.segments, p.T, p.H / p.KV);
    std::vector<floatX> result((size_t)p.T * p.H * p.D, to_floatX(NAN));  // what is not written shows
    Array<floatX> out(result.size(), "out"), qkv(p.qkv.size(), "qkv");
    copy(out.data, result.data(), result.size());
    copy(qkv.data, p.qkv.data(), p.qkv.size());
    attention(out.data, qkv.data, plan, p.T, p.H, p.KV, p.D, p.p_bits);
    device_wait();
    copy(result.data(), out.data, result.size());
    return result;
}

// out[t,h] in float64, and how far off the kernel's may be: float rounds the scores, by 2^-24 of the products summed in them, and
// the sums; bf16 rounds the result, by 2^-8, and each p, by up to 2^-8 at random, unless it is an integer. Of those one that is as good as
// between two may become either.
static void reference(Problem& p, int t, int h, std::vector<double>& out, std::vector<double>& tolerance) {
    const std::vector<int> keys = p.keys(t);
    const int g = h / (p.H / p.KV);
    std::vector<double> weight(keys.size());
    double top = -INFINITY, sum = 0, score_size = 0;
    for (size_t j = 0; j < keys.size(); j++) {
        double dot = 0, size = 0;
        for (int d = 0; d < p.D; d++) {
            const double x = (double)to_float(p.q(t, h, d)) * to_float(p.k(keys[j], g, d));
            dot += x, size += fabs(x);
        }
        score_size = std::max(score_size, size / sqrt((double)p.D));
        weight[j] = dot / sqrt((double)p.D);
        if (!(weight[j] <= top)) top = weight[j];
    }
    for (double& w : weight) w = exp(w - top), sum += w;
    out.assign(p.D, 0), tolerance.assign(p.D, 0);
    std::vector<double> magnitude(p.D), squares(p.D);
    const double error = 5e-6 + 4e-7 * score_size, levels = (1 << p.p_bits) - 1;
    for (size_t j = 0; j < keys.size(); j++) {
        const double exact = weight[j] / sum * levels, probability = (p.p_bits < 16 ? nearbyint(exact) : exact) / levels;
        const bool between = p.p_bits < 16 && fabs(fabs(exact - floor(exact)) - 0.5) <= error * exact;
        for (int d = 0; d < p.D; d++) {
            const double v = to_float(p.v(keys[j], g, d)), x = probability * v;
            out[d] += x, magnitude[d] += fabs(x), squares[d] += p.p_bits < 16 ? 0 : x * x;
            if (between) tolerance[d] += fabs(v) / levels;
        }
    }
    for (int d = 0; d < p.D; d++) {
        tolerance[d] += error * magnitude[d];
        if (sizeof(floatX) == 2) tolerance[d] += (fabs(out[d]) + 2.5 * sqrt(squares[d])) / 256;
    }
}

// Compares every `step`-th token, and those around a tile's edge. A result must be finite exactly where the reference is.
static void check_against_reference(Problem& p, const std::vector<floatX>& result, int step = 1) {
    std::vector<double> out, tolerance;
    for (int t = 0; t < p.T; t++) {
        if (t % step != 0 && t != p.T - 1 && !(t < 2048 && (t % 64 == 0 || t % 64 == 63) && t / 64 % 8 == 0)) continue;
        for (int h = 0; h < p.H; h++) {
            reference(p, t, h, out, tolerance);
            for (int d = 0; d < p.D; d++) {
                const double x = to_float(result[((size_t)t * p.H + h) * p.D + d]);
                if (std::isfinite(out[d]) ? std::fabs(x - out[d]) <= tolerance[d] : !std::isfinite(x)) continue;
                fail("T %d, H %d, KV %d, D %d: token %d, head %d, d %d is %.9g, expected %.9g +- %.2g", p.T, p.H, p.KV, p.D,
                     t, h, d, x, out[d], tolerance[d]);
            }
        }
    }
}

static void check(Problem p, int step = 1) { check_against_reference(p, run(p), step); }

// A random trie: each segment continues one of the last few before it, or nothing; depth at most `depth`.
static std::vector<std::pair<int, int>> random_trie(int n, int depth, int longest, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::pair<int, int>> trie;
    std::vector<int> depth_of;
    for (int s = 0; s < n; s++) {
        int parent = (int)(random() % 6) == 0 ? -1 : s - 1 - (int)(random() % 5);
        if (parent < 0 || depth_of[parent] == depth) parent = parent < 0 ? -1 : trie[parent].second;
        depth_of.push_back(parent < 0 ? 1 : depth_of[parent] + 1);
        trie.push_back({random() % 3 == 0 ? 1 : 1 + (int)(random() % longest), parent});
    }
    return trie;
}

TEST_ON_EVERY_PRODUCT(one_segment) {
    const int heads[][2] = {{3, 3}, {4, 2}, {4, 1}, {8, 1}};
    for (int D : {32, 64, 80, 128})
        for (auto [H, KV] : heads)
            for (int len : {1, 7, 64, 65}) check(make_problem({{len, -1}}, H, KV, D));
}

TEST_ON_EVERY_PRODUCT(one_long_segment) {
    for (int D : {32, 64, 80, 128}) {
        if (traps_for_tiles() && D == 128) continue;
        check(make_problem({{1025, -1}}, 2, 1, D), 73);
        if (!loops_for_tiles()) check(make_problem({{2048, -1}}, 2, 2, D), 149);
    }
    if (!loops_for_tiles()) check(make_problem({{2048, -1}}, 8, 1, 128), 211);
}

TEST_ON_EVERY_PRODUCT(odd_head_dims_and_groups) {
    for (int D : {8, 24, 72, 96, 200, 256}) check(make_problem({{150, -1}, {40, 0}, {33, 0}}, 2, 1, D), 3);
    for (int H : {5, 16, 100, 128}) check(make_problem({{50, -1}, {9, 0}, {9, 0}}, H, 1, 64), 3);
}

TEST_ON_EVERY_PRODUCT(windows) { check(make_problem({{300, -1}, {1, -1}, {129, -1}, {64, -1}, {5, -1}, {77, -1}}, 4, 2, 64), 3); }

// Prefixes and runs that end around the edges of key blocks (64 and 96), under siblings that share a tile.
TEST_ON_EVERY_PRODUCT(edges_of_key_blocks) {
    for (int len : {1, 2, 62, 63, 64, 65, 94, 95, 96, 97, 127, 128, 129, 191, 192, 193}) {
        check(make_problem({{len, -1}, {1, -1}, {2, 0}, {1, 0}, {3, 0}, {40, 0}}, 2, 1, 64), 3);
        check(make_problem({{len, -1}, {130, -1}}, 4, 1, 64), 3);
        check(make_problem({{len, -1}, {130, -1}}, 1, 1, 64));
    }
}

TEST_ON_EVERY_PRODUCT(deep_tries) {
    for (int depth = 1; depth <= 4; depth++) {
        check(make_problem(random_trie(40, depth, 30, depth), 4, 2, 64), 2);
        check(make_problem(random_trie(12, depth, 150, 10 + depth), 2, 1, 128), 5);
        check(make_problem(random_trie(150, depth, 3, 20 + depth), 5, 1, 80), 2);
    }
}

// MMLU: a long root with hundreds of short children. HellaSwag: contexts with four endings each.
TEST_ON_EVERY_PRODUCT(short_children) {
    std::vector<std::pair<int, int>> mmlu = {{700, -1}}, hellaswag;
    for (int i = 0; i < 300; i++) mmlu.push_back({1 + i * 7 % 11, 0});
    check(make_problem(mmlu, 2, 1, 64), 19);
    for (int i = 0; i < 12; i++) {
        hellaswag.push_back({30 + i * 13 % 50, -1});
        for (int ending = 0; ending < 4; ending++) hellaswag.push_back({5 + (i + ending * 7) % 25, i * 5});
    }
    check(make_problem(hellaswag, 4, 2, 128), 5);
}

// --p-bits, in every kernel, over several blocks of keys.
TEST_ON_EVERY_PRODUCT(rounded_probabilities) {
    for (int bits : {8, 4, 2})
        for (int D : {64, 72, 128}) {
            if (traps_for_tiles() && (D != 64 || bits != 8)) continue;
            Problem p = make_problem({{300, -1}, {1, -1}, {129, 0}, {64, 0}, {5, 2}, {77, -1}}, 4, 2, D, 3);
            p.p_bits = bits;
            const std::vector<floatX> rounded = run(p);
            check_against_reference(p, rounded, 3);
            p.p_bits = 16;
            CHECK(memcmp(rounded.data(), run(p).data(), rounded.size() * sizeof(floatX)) != 0);
        }
    // Like keys share the whole: from the 511th on each has less than half a level.
    Problem like = make_problem({{600, -1}}, 2, 1, 64);
    for (int t = 0; t < like.T; t++)
        for (int d = 0; d < like.D; d++) like.k(t, 0, d) = to_floatX(1), like.v(t, 0, d) = to_floatX(1);
    like.p_bits = 8;
    const std::vector<floatX> out = run(like);
    for (int t : {0, 3, 4, 300, 508, 511, 599})
        CHECK_NEAR(to_float(out[(size_t)t * like.H * like.D]), (t + 1) * nearbyint(255.0 / (t + 1)) / 255,
                   sizeof(floatX) == 2 ? 0.004 : 1e-5);
}

// Scores in the hundreds; and a largest score that grows, or falls, with every key.
TEST_ON_EVERY_PRODUCT(sharp_softmax) {
    check(make_problem({{400, -1}, {100, 0}, {100, 0}}, 2, 1, 64, 100), 3);
    for (int sign : {1, -1}) {
        Problem p = make_problem({{500, -1}}, 2, 1, 64);
        for (int t = 0; t < p.T; t++)
            for (int d = 0; d < p.D; d++) p.q(t, 0, d) = to_floatX(1), p.k(t, 0, d) = to_floatX(sign * t / 16.0f);
        check(p, 3);
    }
}

// Equal scores, of a size at which a float's last bit is a factor of exp: the running maximum stays, and with it every weight.
TEST_ON_EVERY_PRODUCT(equal_scores_weigh_alike) {
    Problem p = make_problem({{700, -1}}, 1, 1, 64);
    for (int t = 0; t < p.T; t++)
        for (int d = 0; d < p.D; d++) p.q(t, 0, d) = p.k(t, 0, d) = to_floatX(1000), p.v(t, 0, d) = to_floatX(t < 300 ? 1 : -1);
    const std::vector<floatX> out = run(p);
    for (int t = 0; t < p.T; t++)
        for (int d = 0; d < p.D; d++)
            CHECK_NEAR(to_float(out[(size_t)t * p.D + d]), (t < 300 ? 1.0 : (599.0 - t) / (t + 1)), sizeof(floatX) == 2 ? 1 / 128.0 : 1e-5);
}

TEST_ON_EVERY_PRODUCT(the_trie_equals_separate_sequences) {
    Problem trie = make_problem({{90, -1}, {40, 0}, {25, 1}, {1, 1}, {30, 0}, {70, 4}, {20, 4}, {1, 0}}, 4, 2, 128);
    const std::vector<floatX> shared = run(trie);
    for (int leaf : {2, 3, 5, 6, 7}) {
        const int last = trie.segments[leaf].start + trie.segments[leaf].len - 1;
        const std::vector<int> keys = trie.keys(last);
        Problem alone = make_problem({{(int)keys.size(), -1}}, trie.H, trie.KV, trie.D);
        for (size_t j = 0; j < keys.size(); j++)
            std::copy_n(&trie.qkv[(size_t)keys[j] * trie.stride()], trie.stride(), &alone.qkv[j * alone.stride()]);
        const std::vector<floatX> separate = run(alone);
        std::vector<double> out, tolerance;
        for (size_t j = 0; j < keys.size(); j++)
            for (int h = 0; h < trie.H; h++) {
                reference(trie, keys[j], h, out, tolerance);
                for (int d = 0; d < trie.D; d++)
                    CHECK_NEAR(to_float(shared[((size_t)keys[j] * trie.H + h) * trie.D + d]),
                               to_float(separate[(j * trie.H + h) * trie.D + d]), tolerance[d]);
            }
    }
}

TEST_ON_EVERY_PRODUCT(nothing_else_is_read) {
    Problem p = make_problem({{150, -1}, {30, 0}, {40, 1}, {20, 0}, {50, -1}, {9, 4}}, 4, 2, 64);
    const std::vector<floatX> before = run(p);
    for (int changed : {0, 70, 149, 150, 200, 221, 240, 295}) {
        Problem other = p;
        for (int i = 0; i < p.stride(); i++) other.qkv[(size_t)changed * p.stride() + i] = to_floatX(3);
        const std::vector<floatX> after = run(other);
        for (int t = 0; t < p.T; t++) {
            const size_t n = p.H * p.D, at = t * n;
            CHECK_EQ(memcmp(&before[at], &after[at], n * sizeof(floatX)) == 0, !p.sees(t, changed));
        }
    }
}

// A NaN or Inf reaches the queries that see it, and no others.
TEST_ON_EVERY_PRODUCT(nan_and_inf_go_where_they_belong) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int shape : {0, 1, 2, 3, 4})
        for (float x : bad)
            for (int at : {63, 155, 259}) {
                const int D = std::array{64, 80, 128, 64, 80}[shape], p_bits = shape < 3 ? 16 : 8;
                if (traps_for_tiles() && (D != 64 || at != 155)) continue;
                Problem clean = make_problem({{150, -1}, {30, 0}, {40, 0}, {20, 1}, {20, -1}}, 4, 2, D);
                clean.p_bits = p_bits;
                auto expect = [&](const char* where, Problem& p, const std::function<bool(int, int, int)>& reached) {
                    const std::vector<floatX> out = run(p);
                    for (int t = 0; t < p.T; t++)
                        for (int h = 0; h < p.H; h++)
                            for (int d = 0; d < D; d++)
                                if (std::isfinite(to_float(out[((size_t)t * p.H + h) * D + d])) == reached(t, h, d))
                                    fail("%g in %s of token %d, D %d: token %d, head %d, d %d is %g", x, where, at, D, t, h, d,
                                         to_float(out[((size_t)t * p.H + h) * D + d]));
                    check_against_reference(p, out, 41);
                };
                Problem v = clean, q = clean, k = clean;
                v.v(at, 1, 5) = to_floatX(x);
                expect("v", v, [&](int t, int h, int d) { return h >= 2 && d == 5 && v.sees(t, at); });
                q.q(at, 3, D - 1) = to_floatX(x);
                if (std::isnan(x)) expect("q", q, [&](int t, int h, int) { return t == at && h == 3; });
                k.k(at, 0, 7) = to_floatX(x);
                if (std::isnan(x)) expect("k", k, [&](int t, int h, int) { return h < 2 && k.sees(t, at); });
                else check(k, 29);
            }
}

TEST_ON_EVERY_PRODUCT(same_bytes_every_time) {
    const Problem p = make_problem(random_trie(traps_for_tiles() ? 20 : 60, 3, 40, 5), 8, 4, 128);
    const std::vector<floatX> first = run(p);
    for (int threads : {1, 2, 3}) {
#ifndef __CUDACC__
        const int before = omp_get_max_threads();
        omp_set_num_threads(threads);
#endif
        const std::vector<floatX> again = run(p);
#ifndef __CUDACC__
        omp_set_num_threads(before);
#endif
        if (memcmp(first.data(), again.data(), first.size() * sizeof(floatX)) != 0)
            fail("another result, with %d threads", threads);
    }
}

#ifndef __CUDACC__
TEST(the_cpu_exponential) {
    for (int i = 0; i < 1000000; i++) {
        const float x = -i * 1.25e-4f;  // down to -125
        CHECK_NEAR(exp2_vector(Vector<float>{} + x)[i % LANE] / exp2((double)x), 1, 2e-7);
    }
    CHECK_EQ(exp2_vector(Vector<float>{})[0], 1.0f);
    CHECK_EQ(exp2_vector(Vector<float>{} - 128)[0], 0.0f);
    CHECK_EQ(exp2_vector(Vector<float>{} - INFINITY)[0], 0.0f);
    CHECK(std::isnan(exp2_vector(Vector<float>{} + NAN)[0]));
}
#endif

TEST(short_segments_share_tiles) {
    std::vector<std::pair<int, int>> ones = {{100, -1}, {10, -1}}, chain = {{1, -1}};
    for (int i = 0; i < 1000; i++) ones.push_back({1, 0}), chain.push_back({1, i});
    const size_t tokens = TILE_ROWS / 2;  // of a tile
    const size_t n_tiles = ceil_div<size_t>(110, tokens) + ceil_div<size_t>(1000, tokens);
    CHECK_EQ(attention_plan(make_segments(ones), 1110, 2).tiles.n, n_tiles);
    CHECK_EQ(attention_plan(make_segments(chain), 1001, 2).tiles.n, ceil_div<size_t>(1001, tokens));
    check(make_problem(ones, 2, 1, 64), 61);
    check(make_problem(chain, 2, 1, 64), 61);
}

TEST(an_empty_chunk_is_no_work) {
    const AttentionPlan plan = attention_plan({}, 0, 2);
    attention(nullptr, nullptr, plan, 0, 4, 2, 64);
    CHECK_EQ(plan.tiles.n, 0u);
}

TEST(bad_segments_fail) {
    CHECK_ERROR(attention_plan({{0, 4, -1, 0}, {5, 3, -1, 0}}, 8, 1), "segment 1 starts at token 5, expected 4");
    CHECK_ERROR(attention_plan({{1, 7, -1, 0}}, 8, 1), "segment 0 starts at token 1, expected 0");
    CHECK_ERROR(attention_plan({{0, 7, -1, 0}}, 8, 1), "end at token 7, expected 8");
    CHECK_ERROR(attention_plan({}, 8, 1), "end at token 0, expected 8");
    CHECK_ERROR(attention_plan({{0, 9, -1, 0}}, 8, 1), "segment 0 has 9 tokens");
    CHECK_ERROR(attention_plan({{0, 4, -1, 0}, {4, INT32_MAX, 0, 4}}, 8, 1), "segment 1 has 2147483647 tokens");
    CHECK_ERROR(attention_plan({{0, 8, -1, 0}, {8, 0, 0, 8}}, 8, 1), "segment 1 has 0 tokens");
    CHECK_ERROR(attention_plan({{0, 4, -1, 0}, {4, 4, 1, 4}}, 8, 1), "segment 1 has parent 1");
    CHECK_ERROR(attention_plan({{0, 8, 0, 0}}, 8, 1), "segment 0 has parent 0");
    CHECK_ERROR(attention_plan({{0, 8, -2, 0}}, 8, 1), "segment 0 has parent -2");
    CHECK_ERROR(attention_plan({{0, 8, -1, 0}}, 8, 0), "0 query heads");
    CHECK_ERROR(attention_plan({{0, 8, -1, 0}}, 8, 129), "129 query heads");
}

TEST(bad_shapes_fail) {
    const AttentionPlan plan = attention_plan({{0, 8, -1, 0}}, 8, 2);
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 4, 2, 60), "head_dim is 60");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 4, 2, 264), "head_dim is 264");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 4, 2, 0), "head_dim is 0");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 5, 2, 64), "5 query heads and 2 key heads");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 4, 0, 64), "0 key heads");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 9, 4, 2, 64), "the plan is for 8 tokens");
    CHECK_ERROR(attention(nullptr, nullptr, plan, 8, 4, 4, 64), "not for 8 and 1");
}
