// quant/rptq.cuh: queries, keys and values are three places, each with clusters, extremes and bits of its own; what is swapped or
// shared among them still runs, and only numbers tell.
#include "rptq_layer.h"
#include "test.h"

// Adds to the extremes of I channels those of each sample of `length` rows of x, whose rows are ld apart.
static void add_samples(Extremes& e, const float* x, int T, int length, int ld, int I) {
    for (int first = 0; first < T; first += length)
        for (int i = 0; i < I; i++) {
            float lo = INFINITY, hi = -INFINITY;
            for (int t = first; t < first + length; t++) lo = std::min(lo, x[t * ld + i]), hi = std::max(hi, x[t * ld + i]);
            e.lo.push_back(lo), e.hi.push_back(hi);
        }
}

// Labels and running means are tested on their own (test_rptq.cu); here it is whose they are.
TEST(queries_keys_and_values_have_static_grids_of_their_own) {
    skip_when_emulated();
    RptqLayer l, before;
    const Config& c = l.model.config;
    l.quantize({"-q", "rptq", "-a", "4", "--k-bits", "8", "--v-bits", "3"});
    CHECK(l.layer.q_grid.bits == 4 && l.layer.k_grid.bits == 8 && l.layer.v_grid.bits == 3);
    before.layer.p_bits = 8;  // o's input has the values' labels
    Scratch scratch = scratch_alloc(c, before.streams);
    const int length = before.streams[0].segments[0].len, ld = (c.H + 2 * c.KV) * c.D;
    Extremes q, k, v, o;
    for (const Chunk& chunk : before.streams[0].chunks) {
        floatX* x = before.streams[0].x.data.data + (size_t)chunk.start * c.C;
        for (int stage : {0, 1}) layer_stage(c, before.layer, stage, x, scratch.in.data, chunk, scratch);
        const std::vector<float> qkv = download(scratch.out), in = download(scratch.in);
        add_samples(q, qkv.data(), chunk.T, length, ld, c.H * c.D);
        add_samples(k, qkv.data() + c.H * c.D, chunk.T, length, ld, c.KV * c.D);
        add_samples(v, qkv.data() + (c.H + c.KV) * c.D, chunk.T, length, ld, c.KV * c.D);
        add_samples(o, in.data(), chunk.T, length, c.H * c.D, c.H * c.D);
    }
    const Extremes queries = overall(q, c.H * c.D, "q"), keys = overall(k, c.KV * c.D, "k"), inputs = overall(o, c.H * c.D, "o");
    const std::vector<int> qk = head_labels({&queries, &keys}, c.KV, c.D), values = head_labels({&inputs}, c.KV, c.D);
    const struct {
        int place, heads, bits;
        const Extremes* extremes;
        const std::vector<int>* labels;
    } places[] = {{Q_PLACE, c.H, 4, &q, &qk}, {K_PLACE, c.KV, 8, &k, &qk}, {V_PLACE, c.KV, 3, &v, &values}};
    for (const auto& p : places) {
        const ChannelClusters clusters = clusters_of_heads(*p.labels, p.heads, c.KV, c.D);
        const std::vector<Grid> grids = running_grids(*p.extremes, clusters, p.bits);
        std::vector<float> scale(p.heads * c.D), zero(scale.size());
        copy(scale.data(), l.q.clusters[p.place].scale.data, scale.size());
        copy(zero.data(), l.q.clusters[p.place].zero_point.data, zero.size());
        for (size_t i = 0; i < scale.size(); i++) {
            CHECK_EQ(scale[i], grids[clusters.label[i]].scale);
            CHECK_EQ(zero[i], grids[clusters.label[i]].zero);
        }
    }
}

// Without bits of activations, too.
TEST(keys_and_values_have_bits_of_their_own) {
    skip_when_emulated();
    RptqLayer l;
    l.quantize({"-q", "rptq", "-a", "16", "--k-bits", "8", "--v-bits", "3"});
    CHECK(l.layer.q_grid.bits == 16 && l.layer.k_grid.bits == 8 && l.layer.v_grid.bits == 3);
}
