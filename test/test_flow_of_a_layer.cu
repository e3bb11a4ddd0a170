// What flows through a layer, and on which grids: that rotations and options arrive where they work.
#include "golden.h"
#include "small_model.h"
#include "test.h"
#include <set>

// q, k and v [T, (H + 2 KV) D] as attention sees them, and o's input [T, H D] as its product sees it (after the next stage).
struct Flow {
    std::vector<float> qkv, o;
};

// Of 40 tokens in windows of so many; where `bias` isn't 0, it takes the place of each bias of q, k and v.
static Flow flow_of(const Model& m, const Rotation* r, const QuantOptions& opt, int window = 40, float bias = 0) {
    const Config& c = m.config;
    std::vector<int> tokens;
    for (int i = 0; i < 40; i++) tokens.push_back((i * i + 5) % c.V);
    std::vector<Stream> one;
    one.push_back(stream_of_windows(c, "tokens", tokens, window, false));
    Stream& s = one[0];
    s.x.width = c.C, s.x.data = Array<floatX>(tokens.size() * c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, one);
    Layer layer = layer_alloc(c);
    for (const Param& p : layer_params(c, layer)) load_param(m, p);
    if (bias != 0) launch(fill_kernel, 1, 64, layer.groups[0].bias, bias, layer.groups[0].O);
    layer.rotation = r;
    QuantOptions cache = opt;
    cache.abits = 16;  // the inputs of q, k and v stay
    layer_set_grids(layer, cache, c.D, true);
    Flow flow;
    for (int stage = 0; stage <= 1; stage++) layer_stage(c, layer, stage, s.x.data.data, scratch.in.data, s.chunks[0], scratch);
    const size_t n = tokens.size() * (c.H + 2 * c.KV) * c.D;
    flow.qkv = download(scratch.out);
    flow.qkv.resize(n);
    layer_set_grids(layer, opt, c.D, true);
    stage_products(layer, 1, scratch.out.data, scratch.in.data, s.chunks[0], scratch);  // rounds them where they are
    flow.o = download(scratch.in);
    flow.o.resize(tokens.size() * c.H * c.D);
    return flow;
}

static size_t distinct(const std::vector<float>& x, size_t first, size_t n) {
    return std::set<float>(x.begin() + first, x.begin() + first + n).size();
}

TEST(keys_values_and_os_input_have_a_grid_a_head) {
    const Config c = small_config(false);
    const Model m = small_model(c);
    const Rotation r = small_rotation(c);
    const int D = c.D, heads = c.H + 2 * c.KV;
    for (const Rotation* rotation : {(const Rotation*)nullptr, &r}) {
        const Flow plain = flow_of(m, rotation, QuantOptions());
        for (bool k : {true, false}) {
            QuantOptions o;
            (k ? o.k_bits : o.v_bits) = 3, o.abits = 4, o.a_asym = true, o.a_heads = true;
            const Flow few = flow_of(m, rotation, o);
            for (int t = 0; t < 40; t++)
                for (int h = 0; h < heads; h++) {
                    const size_t at = ((size_t)t * heads + h) * D;
                    const bool on_grid = k ? h >= c.H && h < c.H + c.KV : h >= c.H + c.KV;
                    if (on_grid) {  // each value is that of the unquantized head, to half a step of its own range
                        float lo = 0, hi = 0;
                        for (int d = 0; d < D; d++) lo = std::min(lo, plain.qkv[at + d]), hi = std::max(hi, plain.qkv[at + d]);
                        for (int d = 0; d < D; d++)
                            CHECK_NEAR(few.qkv[at + d], plain.qkv[at + d], 1.05 * (hi - lo) / 7 / 2 + 0.01 * hi);
                        CHECK(distinct(few.qkv, at, D) <= 8 && distinct(plain.qkv, at, D) > 8);
                    } else {
                        for (int d = 0; d < D; d++) CHECK_EQ(few.qkv[at + d], plain.qkv[at + d]);
                    }
                }
            for (int t = 1; t < 40; t++)
                for (int h = 0; h < c.H; h++) CHECK(distinct(few.o, ((size_t)t * c.H + h) * D, D) <= 16);
            CHECK(distinct(few.o, (size_t)c.H * D, c.H * D) > 16);  // not one grid for all heads
        }
    }
}

static void check_rounded(float found, double expected) {
    CHECK_NEAR(found, expected, sizeof(floatX) == 4 ? 1e-5 : std::fabs(expected) / 250 + 1e-5);
}

// q and k of each head times Sylvester's matrix over sqrt(D), values as they were.
TEST(r3_turns_the_heads_of_queries_and_keys_alone) {
    const Config c = small_config(false);
    const Model m = small_model(c);
    const Rotation r3 = rotation_make(shape_of(c), 5, 0, {false, false, true, false});
    const Flow plain = flow_of(m, nullptr, QuantOptions()), turned = flow_of(m, &r3, QuantOptions());
    const int D = c.D, heads = c.H + 2 * c.KV;
    for (int t = 0; t < 40; t++)
        for (int h = 0; h < heads; h++) {
            const size_t at = ((size_t)t * heads + h) * D;
            for (int j = 0; j < D; j++) {
                double sum = 0;
                for (int i = 0; i < D; i++) sum += plain.qkv[at + i] * (__builtin_popcount(i & j) % 2 ? -1 : 1) / std::sqrt((double)D);
                if (h < c.H + c.KV) check_rounded(turned.qkv[at + j], sum);
                else CHECK_EQ(turned.qkv[at + j], plain.qkv[at + j]);
            }
        }
}

// Every field of the grids of a dense layer and of a mixture. Whole rows hold the 0, and so do keys; groups, heads and values need not.
TEST(options_reach_every_field_of_every_grid) {
    for (const Config& c : {small_config(false), config_official("30b-a3b")})
        for (bool asym : {false, true})
            for (bool heads : {false, true})
                for (int group : {-1, 16}) {
                    QuantOptions o;
                    o.abits = 5, o.a_clip = 0.6, o.a_asym = asym, o.a_heads = heads, o.a_group = group;
                    o.k_bits = 3, o.v_bits = 6, o.kv_clip = 0.7, o.p_bits = 7;
                    Layer layer = layer_shapes(c, 0);
                    layer_set_grids(layer, o, c.D, true);
                    for (size_t g = 0; g < layer.groups.size(); g++) {
                        const FlowGrid& grid = layer.groups[g].grid;
                        const int of_group = heads && g == 1 ? c.D : group;  // group 1 is o's
                        CHECK(grid.bits == 5 && grid.clip == 0.6f && grid.sym == !asym);
                        CHECK_EQ(grid.group, of_group);
                        CHECK_EQ(grid.zero, of_group == -1);
                    }
                    for (const FlowGrid* cache : {&layer.k_grid, &layer.v_grid})
                        CHECK(!cache->sym && cache->clip == 0.7f && cache->group == c.D);
                    CHECK(layer.k_grid.bits == 3 && layer.k_grid.zero && layer.v_grid.bits == 6 && !layer.v_grid.zero);
                    CHECK(layer.q_grid.bits == 16 && layer.p_bits == 7);
                    layer_set_grids(layer, o, c.D, false);
                    for (const Group& g : layer.groups) CHECK_EQ(g.grid.bits, 16);
                    CHECK(layer.q_grid.bits == 16 && layer.k_grid.bits == 16 && layer.v_grid.bits == 16 && layer.p_bits == 16);
                }
}

// n values that share an asymmetric grid are where its definition puts them. A value halfway between two codes may have either: which one
// hangs on float's last bits, and so does the code of 0.
static void check_on_grid(const float* found, const float* x, int n, int bits, double clip, bool zero) {
    double lo = *std::min_element(x, x + n), hi = *std::max_element(x, x + n);
    if (zero) lo = std::min(lo, 0.0), hi = std::max(hi, 0.0);
    const double top = (1 << bits) - 1, scale = clip * (hi - lo) / top;
    for (int i = 0; i < n; i++) {
        double nearest = INFINITY;
        for (double a : {-2e-5, 2e-5})
            for (double b : {-2e-5, 2e-5}) {
                const double z = std::nearbyint(-clip * lo / scale + a);
                const double value = scale * (std::clamp(std::nearbyint(x[i] / scale + b) + z, 0.0, top) - z);
                if (std::fabs(found[i] - value) < std::fabs(found[i] - nearest)) nearest = value;
            }
        check_rounded(found[i], nearest);
    }
}

// With biases that leave each head's keys and values one sign, the two rules about the 0 differ. Windows of one token: the rotary embedding
// turns nothing.
TEST(keys_and_values_are_on_the_grids_of_the_options) {
    const Config c = small_config(true);
    const Model m = small_model(c);
    const int D = c.D, heads = c.H + 2 * c.KV;
    for (float bias : {0.0f, 8.0f, -8.0f})
        for (double clip : {1.0, 0.6}) {
            QuantOptions o;
            o.k_bits = 3, o.v_bits = 4, o.kv_clip = clip;
            const Flow plain = flow_of(m, nullptr, QuantOptions(), 1, bias), few = flow_of(m, nullptr, o, 1, bias);
            for (int t = 0; t < 40; t++)
                for (int h = 0; h < heads; h++) {
                    const float *from = &plain.qkv[((size_t)t * heads + h) * D], *found = &few.qkv[((size_t)t * heads + h) * D];
                    const bool k = h >= c.H && h < c.H + c.KV, v = h >= c.H + c.KV;
                    for (int d = 0; d < D; d++) CHECK(bias == 0 || from[d] * bias > 0);
                    if (k || v) check_on_grid(found, from, D, k ? 3 : 4, clip, k);
                    else CHECK(std::equal(from, from + D, found));
                }
        }
}

TEST(os_input_is_on_the_grid_of_the_options) {
    const Config c = small_config(false);
    const Model m = small_model(c);
    const std::vector<float> plain = flow_of(m, nullptr, QuantOptions()).o;
    for (int n : {c.H * c.D, c.D, 16}) {  // values that share a grid
        QuantOptions o;
        o.abits = 4, o.a_asym = true, o.a_clip = 0.6;
        o.a_heads = n == c.D, o.a_group = n == 16 ? 16 : -1;
        const std::vector<float> few = flow_of(m, nullptr, o).o;
        for (size_t at = 0; at < few.size(); at += n) check_on_grid(&few[at], &plain[at], n, 4, 0.6, n == c.H * c.D);
    }
}
