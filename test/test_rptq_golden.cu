// quant/rptq.cuh against RPTQ4LLM itself: scripts/golden/golden_rptq.py ran its authors' code on two problems, which it defines and
// which are generated here again.
#include "../quant/rptq.cuh"
#include "rptq_layer.h"
#include "test.h"

static constexpr const char* FILE_OF_ALL = "test/golden/rptq.safetensors";
static const float WINDOW_SIZES[] = {1, 0.5f, 0.75f, 1.25f, 0.625f, 1.125f};

static float to_stored(float x) { return to_float(to_bf16(x)); }

static void check_sum(const Checkpoint& ck, const char* name, const std::vector<float>& values) {
    CHECK_NEAR(std::accumulate(values.begin(), values.end(), 0.0), golden<double>(ck, name)[0], 1e-6);
}

// Inputs of 8 heads of 24 channels, and the weights of a linear that reads them.
struct Places {
    int O = 24, I = 192, samples = 6, length = 96, heads = 8;
    std::vector<float> W, X;  // [O, I], [samples * length, I]
    Quantizer q;
    Extremes e;  // of all samples
    explicit Places(const Checkpoint& ck) {
        for (int i = 0; i < O * I; i++) W.push_back(to_stored(twelve_bits("rptq.W", i) * (i % I % 64 == 7 ? 0.25f : 0.0625f)));
        for (int t = 0; t < samples * length; t++)
            for (int j = 0; j < I; j++) {
                auto x = [&](int k) { return k < 0 ? 0.0f : twelve_bits("rptq.X", (uint64_t)t * I + k); };
                const float sum = x(j) + 0.75f * x(j - 1) + 0.5f * x(j - 2) + 0.5f * twelve_bits("rptq.z", t);
                const float y = std::min(std::max(sum, -1.0f), 1.0f);
                const int kind = 4 * (j / 24) + (5 * (j % 24) + j / 24) % 4;
                const float size = y > 0 ? (float)(1 + kind % 8) / 2 : 0.5f + (float)(kind / 8);
                const float c = kind == 0 ? 0 : (1 + (float)(37 * j % 64) / 4096) * size;
                X.push_back(to_stored(WINDOW_SIZES[t / length] * c * y));
            }
        check_sum(ck, "check.W_sum", W), check_sum(ck, "check.X_sum", X);
        quantizer_expect(q, Layer());
        q.sample_length = length;
        collect_extremes(e, q, upload(X).data, samples * length, I, I);
    }
};

// The same channels together, whatever their clusters' numbers.
static bool same_partition(const std::vector<int>& a, const std::vector<int>& b) {
    std::map<int, int> to, from;
    for (size_t i = 0; i < a.size(); i++)
        if (to.insert({a[i], b[i]}).first->second != b[i] || from.insert({b[i], a[i]}).first->second != a[i]) return false;
    return a.size() == b.size();
}

// Without fused multiply-adds the running means, and so the scales, are the original's to the last bit; with them (-march=native) it is the
// last bit that may differ. Zeros are whole numbers, and are the same.
static void check_grids(const std::vector<Grid>& found, const Checkpoint& ck, const std::string& name, double tolerance = 2e-7) {
    const std::vector<float> scale = golden<float>(ck, name + "_scale"), zero = golden<float>(ck, name + "_zero");
    CHECK_EQ(found.size(), scale.size());
    for (size_t k = 0; k < found.size(); k++) {
        CHECK_NEAR(found[k].scale, scale[k], tolerance * scale[k]);
        CHECK_EQ(found[k].zero, zero[k]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Clusters, grids, weights

// Channels come in kinds whose ranges lie far apart, so that there is one best partition.
TEST(channels_are_clustered_as_the_original_does) {
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    const Places p(ck);
    const Extremes all = overall(p.e, p.I, "test");
    const ChannelClusters c = channel_clusters(all), of_heads = clusters_of_heads(head_labels({&all}, p.heads, p.I / p.heads),
                                                                                  p.heads, p.heads, p.I / p.heads);
    CHECK_EQ(c.n(), 32);
    CHECK_EQ(of_heads.n(), 32);
    CHECK(same_partition(c.label, golden<int>(ck, "labels")));
    CHECK(same_partition(of_heads.label, golden<int>(ck, "o.labels")));
}

TEST(static_grids_and_what_they_round_to_are_the_originals) {
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    Places p(ck);
    const int rows = 16, last = (p.samples - 1) * p.length * p.I;
    struct {
        const char *name, *labels;
        int bits;
    } places[] = {{"w4a4.norm", "labels", 8},   {"w4a4.down", "labels", 4}, {"w4a4.o", "o.labels", 4},
                  {"w3a8.down", "labels", 8},   {"w3a8.o", "o.labels", 8},  {"w4a4_one.down", nullptr, 4},
                  {"w3a8_one.down", nullptr, 8}};
    for (const auto& place : places) {
        const ChannelClusters c = clusters_of_labels(place.labels ? golden<int>(ck, place.labels) : std::vector<int>(p.I, 0));
        const std::vector<Grid> grids = running_grids(p.e, c, place.bits);
        check_grids(grids, ck, std::string(place.name) + ".a");
        p.q.extremes[0] = p.e;
        const FlowGrid grid = place_grid(p.q, 0, c, place.bits);
        const Array<floatX> x = upload({p.X.begin() + last, p.X.begin() + last + rows * p.I});
        flow_grid_apply(x.data, rows, p.I, p.I, grid);
        const std::vector<float> found = download(x);
        const std::vector<int8_t> codes = golden<int8_t>(ck, std::string(place.name) + ".a_codes");
        for (int k = 0; k < rows * p.I; k++) {
            const Grid& g = grids[c.label[k % p.I]];
            CHECK_EQ(found[k], to_float(to_floatX(g.scale * ((float)codes[k] - g.zero))));
        }
    }
}

// GPTQ's sums are float in another order, so that a weight in a thousand may fall to the neighbouring code, and those after it feel it.
TEST(weights_are_the_originals) {
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    const Places p(ck);
    Array<float> H((size_t)p.I * p.I, "Hessian");
    fill_zero(H.data, H.n);
    hessian_add(H.data, upload(p.X).data, p.samples * p.length, p.I);
    mirror_upper(H.data, p.I);
    const Array<float> W0 = to_device(p.W);
    struct {
        const char *name, *labels;
        int bits;
    } runs[] = {{"w4a4.down", "labels", 4}, {"w3a8.down", "labels", 3},    {"w4a4.o", "o.labels", 4},
                {"w3a8.o", "o.labels", 3},  {"w4a4_one.down", nullptr, 4}, {"w3a8_one.down", nullptr, 3}};
    for (const auto& run : runs) {
        const ChannelClusters c = clusters_of_labels(run.labels ? golden<int>(ck, run.labels) : std::vector<int>(p.I, 0));
        Array<floatX> W = upload(p.W);
        Group group = {"test", p.O, p.I, W.data, nullptr, 1, {{"test_proj", 0, p.O}}};
        QuantOptions opt;
        opt.wbits = run.bits, opt.group_size = -1, opt.pack = true;
        const GptqResult result = rptq_weights(group, W0.data, H.data, p.samples, c, opt, "test");
        std::vector<Grid> grids(result.made.grids.n);
        copy(grids.data(), result.made.grids.data, grids.size());
        const std::string name = std::string(run.name) + ".";
        const std::vector<float> scale = golden<float>(ck, name + "w_scale"), zero = golden<float>(ck, name + "w_zero");
        const std::vector<int8_t> codes = golden<int8_t>(ck, name + "w_codes");
        const float half = (float)(1 << (run.bits - 1));  // codes begin at 0 here
        for (size_t k = 0; k < grids.size(); k++) CHECK(grids[k].scale == scale[k] && grids[k].zero == zero[k] + half);
        const std::vector<float> found = download(W);
        int wrong = 0;
        for (int k = 0; k < p.O * p.I; k++) {
            const Grid& g = grids[k / p.I * c.n() + c.label[k % p.I]];
            wrong += found[k] != to_float(to_floatX(g.scale * ((float)codes[k] + half - g.zero)));
        }
        const double loss = std::accumulate(result.losses.begin(), result.losses.end(), 0.0),
                     expected = golden<double>(ck, name + "loss")[0];
        if (wrong > p.O * p.I / 1000) fail("%s%d of %d weights differ", name.c_str(), wrong, p.O * p.I);
        CHECK_NEAR(loss, expected, 1e-4 * expected);
        CHECK_EQ(result.dead, 6);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Attention

struct AttentionProblem {
    int H = 4, D = 16, samples = 4, T = 32, width = 3 * 64;
    std::vector<float> qkv;  // [samples * T, 3 H D]
    Quantizer q;
    explicit AttentionProblem(const Checkpoint& ck) {
        static const float of_q[] = {1, 1, 3, 3}, of_k[] = {4, 2, 4, 2};
        for (int t = 0; t < samples * T; t++)
            for (const char* name : {"softmax.q", "softmax.k", "softmax.v"})
                for (int i = 0; i < H * D; i++) {
                    const float x = twelve_bits(name, (uint64_t)t * H * D + i);
                    const int d = i % D;
                    const float c = name[8] == 'q'   ? of_q[d % 4]
                                    : name[8] == 'k' ? of_k[d % 4]
                                                     : (x > 0 ? 2 : 1) * (0.5f + 0.5f * (float)(d / 4));
                    qkv.push_back(to_stored(WINDOW_SIZES[t / T] * c * x));
                }
        check_sum(ck, "check.qkv_sum", qkv);
        quantizer_expect(q, Layer());
        q.sample_length = T;
        const Array<floatX> d = upload(qkv);
        for (int k = 0; k < 3; k++) collect_extremes(q.extremes[k], q, d.data + k * H * D, samples * T, width, H * D);
    }
};

TEST(queries_and_keys_are_clustered_together_as_the_original_does) {
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    const AttentionProblem p(ck);
    const Extremes queries = overall(p.q.extremes[0], p.H * p.D, "q"), keys = overall(p.q.extremes[1], p.H * p.D, "k");
    const std::vector<int> labels = head_labels({&queries, &keys}, p.H, p.D);
    CHECK(same_partition(clusters_of_heads(labels, p.H, p.H, p.D).label, golden<int>(ck, "attention.qk_labels")));
}

// Static grids of q, k, v and of o's input, and what attention makes of the rounded ones. The original takes softmax, products and sums in
// float; in a bf16 build a probability may fall to the next multiple of 1/255, so that only the whole says something there.
TEST(attention_between_rounded_queries_keys_values_and_probabilities_is_the_originals) {
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    const std::vector<int> qk = golden<int>(ck, "attention.qk_labels"), vo = golden<int>(ck, "attention.vo_labels");
    const bool exact = sizeof(floatX) == 4;
    struct {
        std::string name;
        int q, kv, p, o;  // bits
    } modes[] = {{"a8", 8, 8, 8, 8}, {"a4", 4, 4, 8, 4}, {"kv4", 16, 4, 16, 16}};
    for (const auto& mode : modes) {
        AttentionProblem problem(ck);
        const int E = problem.H * problem.D, all = problem.samples * problem.T;
        std::vector<Segment> segments;
        for (int w = 0; w < problem.samples; w++) segments.push_back({w * problem.T, problem.T, -1, 0});
        const AttentionPlan plan = attention_plan(segments, all, 1);
        const Array<floatX> x = upload(problem.qkv);
        Array<floatX> out((size_t)all * E, "out");
        // What calibrates is rounded nowhere but in the probabilities.
        attention(out.data, x.data, plan, all, problem.H, problem.H, problem.D, mode.p);
        Extremes of_o;
        collect_extremes(of_o, problem.q, out.data, all, E, E);
        const int bits[] = {mode.q, mode.kv, mode.kv};
        for (int k = 0; k < 3; k++) {
            const ChannelClusters c = clusters_of_labels(k == 2 ? vo : qk);
            if (bits[k] < 16) check_grids(running_grids(problem.q.extremes[k], c, bits[k]), ck, mode.name + "." + "qkv"[k]);
            flow_grid_apply(x.data + k * E, all, problem.width, E, place_grid(problem.q, k, c, bits[k]));
        }
        if (exact && mode.o < 16) check_grids(running_grids(of_o, clusters_of_labels(vo), mode.o), ck, mode.name + ".o", 2e-6);
        attention(out.data, x.data, plan, all, problem.H, problem.H, problem.D, mode.p);
        const std::vector<float> found = download(out), expected = golden<float>(ck, mode.name + ".out");
        double difference = 0, size = 0;
        for (size_t i = 0; i < expected.size(); i++) {
            const double off = found[found.size() - expected.size() + i] - expected[i];
            difference += off * off, size += expected[i] * expected[i];
            if (exact) CHECK_NEAR(off, 0, 1e-5);
        }
        CHECK(std::sqrt(difference / size) < 0.01);
    }
}

// The original's bits of each place; --kv-bits with 16 bits of activations is its --only_quant_kv.
TEST(bits_of_places_are_the_originals) {
    skip_when_emulated();
    const Checkpoint ck = safetensors_open(FILE_OF_ALL);
    const std::vector<int> bits = golden<int>(ck, "bits");
    int runs = 0;
    for (const int* row = bits.data(); row < bits.data() + bits.size(); row += 8) {
        const int abits = row[0], kv_only = row[1];
        if (kv_only ? abits != 3 && abits != 8 : abits != 4 && abits != 8 && abits != 16) continue;
        const std::string n = std::to_string(abits);
        RptqLayer l;
        if (kv_only) l.quantize({"-q", "rptq", "-a", "16", "--kv-bits", n.c_str()});
        else l.quantize({"-q", "rptq", "-a", n.c_str()});
        const int norms = row[2], act = row[3], expected[] = {norms, act, norms, act};
        for (int g = 0; g < STAGES; g++) CHECK_EQ(l.layer.groups[g].grid.bits, expected[g]);
        CHECK_EQ(l.layer.q_grid.bits, row[4]);
        CHECK_EQ(l.layer.k_grid.bits, row[5]);
        CHECK_EQ(l.layer.v_grid.bits, row[6]);
        CHECK_EQ(l.layer.p_bits, row[7]);
        runs++;
    }
    CHECK_EQ(runs, 5);
}
