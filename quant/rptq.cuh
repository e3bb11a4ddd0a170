// rptq.cuh: RPTQ (Yuan, Niu, Liu, Liu, Wang, Shang, Sun, Wu, Wu, Wu: "RPTQ: Reorder-based Post-training Quantization for Large Language
// Models", 2023), as hahnyuan/RPTQ4LLM defines it for OPT, carried over to Qwen3.
//
// Channels of an activation differ in their ranges by far more than tokens do. Those of like range are put into a cluster, and a cluster
// has one grid. The original moves the channels of a cluster next to each other; a label for each channel gives the same numbers without
// moving anything: a grid takes what has its label, and GPTQ visits the columns in the order of labels.
//
//   1  one pass of the calibration stream through the layer as it is, but for attention's probabilities, which are on their grid: each
//      channel's extremes in every sample, and GPTQ's H (step 2's extremes are from a pass without that grid in the original)
//   2  k-means of the channels' (max, min) over all samples, k-means++ starts, 10 restarts, the least inertia:
//          inputs of q k v, of gate up, of down     32 clusters
//          o's input                                4 for each kv head, extremes over the query heads that share it; a query head has
//                                                   grids of its own. The values v have the same labels
//          q and k behind the rotary embedding      4 for each kv head of (max q, max k, min q, min k), grids likewise
//   3  activations: a static grid for each cluster. lo and hi are running means over the samples of the cluster's extremes,
//      0.99 old + 0.01 new, from the first sample's on;
//          s = (hi - lo) / 2^b within [1e-4, 1e4],   z = round(-(hi + lo) / (2 s))
//          q = clamp(round(x / s) + z, -2^(b-1), 2^(b-1) - 1),   x^ = s (q - z)      (the original also keeps z within +-1e4)
//      --a-dynamic: instead, the asymmetric grid of cuda/flow_grid.cuh for each token and cluster (the original: step 3's, for all tokens)
//   4  weights: a grid for each row and cluster of input columns, the same formula over the original weights; then GPTQ with these
//      grids, columns in the order of labels
//   5  the stream goes through the quantized layer, its activations quantized too
//
// -a are the bits of q, k, v and of the inputs of o and down; the norms' outputs, the inputs of q k v gate up, have --norm-abits, of which
// the original never spends fewer than 8, nor on attention's probabilities, which become multiples of 1/255 (--p-bits): what is
// below 1/510 becomes 0, so all of a thousand equally likely keys. With -a 16 --kv-bits 4 only keys and values are quantized: its paper's W4A4KV.
//
// symbols: W [O, I], X [T, I], I channels, D head_dim, b bits, s scale, z zero
// defaults: damp 0.01, no act-order, 128 x 2048 tokens of C4 (the original: a mixture of three sets)
// cost: GPTQ's, and 10 restarts of k-means, I * 32 distances a round
//
// defines: ChannelClusters, k_means, channel_clusters, head_labels, clusters_of_heads, rptq_grid, running_grids, place_grid,
//          rptq_weights, rptq_collect, rptq_collect_heads, rptq_solve, rptq_device_bytes
#pragma once
#include "../data/random.h"
#include "gptq.cuh"

static constexpr int RPTQ_CLUSTERS = 32, RPTQ_HEAD_CLUSTERS = 4;
static constexpr int RPTQ_CHANNELS = 64;  // whose extremes a block takes
static constexpr int RPTQ_SAMPLES = 16;   // of which they are taken at a time

// ---------------------------------------------------------------------------------------------------------------------
// Extremes

// lo, hi [samples, I]: the least and the largest value of each channel in each sample of `length` rows, NaN where there is one. One block
// a sample and RPTQ_CHANNELS channels, of which a thread has its own.
KERNEL rptq_extremes_kernel(float* lo, float* hi, const floatX* x /*[samples * length, I], rows ld apart*/, size_t ld, int length,
                            int I) {
    const int first = blockIdx.y * RPTQ_CHANNELS, end = first + RPTQ_CHANNELS < I ? first + RPTQ_CHANNELS : I;
    float *least = lo + (size_t)blockIdx.x * I, *most = hi + (size_t)blockIdx.x * I;
    const floatX* row = x + (size_t)blockIdx.x * length * ld;
    for (int i = first + threadIdx.x; i < end; i += blockDim.x) least[i] = most[i] = to_float(row[i]);
    for (int t = 1; t < length; t++) {
        row += ld;
        for (int i = first + threadIdx.x; i < end; i += blockDim.x) {
            const float v = to_float(row[i]);
            least[i] = v < least[i] || v != v ? v : least[i];
            most[i] = v > most[i] || v != v ? v : most[i];
        }
    }
}

// Adds the samples of n rows to a place's extremes.
inline void collect_extremes(Extremes& e, const Quantizer& q, const floatX* x /*[n, I], rows ld apart*/, int n, size_t ld, int I) {
    const int length = q.sample_length, samples = n / length;  // chunks are made of whole ones
    const int at_once = std::min(samples, RPTQ_SAMPLES);
    Array<float> lo((size_t)at_once * I, "least values"), hi((size_t)at_once * I, "largest values");
    for (int s = 0; s < samples; s += at_once) {
        const int now = std::min(at_once, samples - s);
        launch(rptq_extremes_kernel, dim3(now, ceil_div(I, RPTQ_CHANNELS)), RPTQ_CHANNELS, lo.data, hi.data,
               x + (size_t)s * length * ld, ld, length, I);
        const size_t at = e.lo.size(), more = (size_t)now * I;
        e.lo.resize(at + more), e.hi.resize(at + more);
        copy(e.lo.data() + at, lo.data, more), copy(e.hi.data() + at, hi.data, more);
    }
}

inline void rptq_collect(Quantizer& q, const Group& group, int g, const floatX* X /*[n, I]*/, int n) {
    hessian_collect(q, group, g, X, n);
    collect_extremes(q.extremes[g], q, X, n, group.I, group.I);
}

// Where q, k and v are among the places: behind the groups' inputs.
static constexpr int Q_PLACE = STAGES, K_PLACE = STAGES + 1, V_PLACE = STAGES + 2;

// qkv [T, (H + 2 KV) D] behind the rotary embedding.
inline void rptq_collect_heads(Quantizer& q, const Layer& layer, const floatX* qkv, int T) {
    const Group& group = layer.groups[0];
    for (int k = 0; k < 3; k++)
        collect_extremes(q.extremes[Q_PLACE + k], q, qkv + group.linears[k].row, T, group.O, group.linears[k].O);
}

// The extremes of all samples, one sample's shape. What is not finite ends the run.
inline Extremes overall(const Extremes& e, int I, const std::string& where) {
    Extremes all = {std::vector<float>(e.lo.begin(), e.lo.begin() + I), std::vector<float>(e.hi.begin(), e.hi.begin() + I)};
    for (size_t k = 0; k < e.lo.size(); k++) {
        if (!std::isfinite(e.lo[k]) || !std::isfinite(e.hi[k]))
            fail("%s: the calibration activations hold NaN or Inf in channel %zu. HINT: check the checkpoint, or raise the bits of "
                 "earlier layers",
                 where.c_str(), k % I);
        all.lo[k % I] = std::min(all.lo[k % I], e.lo[k]), all.hi[k % I] = std::max(all.hi[k % I], e.hi[k]);
    }
    return all;
}

// ---------------------------------------------------------------------------------------------------------------------
// k-means

static constexpr int KMEANS_RESTARTS = 10, KMEANS_ROUNDS = 300;

inline double squared_distance(const double* a, const double* b, int d) {
    double sum = 0;
    for (int i = 0; i < d; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

// k-means++: the first centre is any point; each further one a point with a probability in proportion to the square of its distance to
// the nearest centre so far. Fewer than k where there are fewer different points.
inline std::vector<double> k_means_begin(const std::vector<double>& points /*[n, d]*/, int d, int k, PythonRandom& random) {
    const int n = (int)points.size() / d;
    std::vector<double> centres, nearest(n, INFINITY);
    int next = (int)random.randint(0, n - 1);
    for (int c = 0; c < k; c++) {
        centres.insert(centres.end(), &points[(size_t)next * d], &points[(size_t)next * d] + d);
        double total = 0;
        for (int i = 0; i < n; i++) {
            nearest[i] = std::min(nearest[i], squared_distance(&points[(size_t)i * d], &centres[(size_t)c * d], d));
            total += nearest[i];
        }
        if (total == 0) break;
        double left = random.random() * total;
        for (next = 0; next < n - 1 && left >= nearest[next]; next++) left -= nearest[next];
    }
    return centres;
}

struct KMeans {
    std::vector<int> label;  // [n]
    double inertia = INFINITY;
};

// Lloyd's rounds: each point to its nearest centre, of equally near ones to the first; each centre to the mean of its points.
inline KMeans k_means_rounds(const std::vector<double>& points /*[n, d]*/, int d, std::vector<double> centres) {
    const int n = (int)points.size() / d, k = (int)centres.size() / d;
    KMeans found;
    found.label.assign(n, -1);
    std::vector<double> distance(n);
    for (int round = 0; round < KMEANS_ROUNDS; round++) {
        const std::vector<int> before = found.label;
#pragma omp parallel for if ((long)n * k > 1 << 16)
        for (int i = 0; i < n; i++) {
            distance[i] = INFINITY;
            for (int c = 0; c < k; c++) {
                const double to = squared_distance(&points[(size_t)i * d], &centres[(size_t)c * d], d);
                if (to < distance[i]) distance[i] = to, found.label[i] = c;
            }
        }
        found.inertia = std::accumulate(distance.begin(), distance.end(), 0.0);
        if (found.label == before) break;
        std::vector<double> sums(centres.size(), 0);
        std::vector<int> members(k, 0);
        for (int i = 0; i < n; i++) {
            members[found.label[i]]++;
            for (int x = 0; x < d; x++) sums[(size_t)found.label[i] * d + x] += points[(size_t)i * d + x];
        }
        for (size_t x = 0; x < sums.size(); x++)
            if (members[x / d]) centres[x] = sums[x] / members[x / d];
    }
    return found;
}

// The best of the restarts, clusters without points left out.
inline KMeans k_means(const std::vector<double>& points /*[n, d]*/, int d, int k) {
    PythonRandom random(0);
    KMeans best;
    for (int restart = 0; restart < KMEANS_RESTARTS; restart++) {
        KMeans found = k_means_rounds(points, d, k_means_begin(points, d, k, random));
        if (found.inertia < best.inertia) best = std::move(found);
    }
    std::vector<int> number(k, -1);
    for (int label : best.label) number[label] = 0;
    int n = 0;
    for (int& x : number)
        if (x == 0) x = n++;
    for (int& label : best.label) label = number[label];
    return best;
}

// ---------------------------------------------------------------------------------------------------------------------
// Clusters of a place's channels

struct ChannelClusters {
    std::vector<int> label;   // [I]
    std::vector<int> order;   // [I] channels in the order of labels
    std::vector<int> starts;  // [n + 1] where each cluster begins in `order`
    int n() const { return (int)starts.size() - 1; }
};

inline ChannelClusters clusters_of_labels(const std::vector<int>& label) {
    ChannelClusters c;
    c.label = label;
    c.order.resize(label.size());
    std::iota(c.order.begin(), c.order.end(), 0);
    std::stable_sort(c.order.begin(), c.order.end(), [&](int a, int b) { return label[a] < label[b]; });
    c.starts.assign(*std::max_element(label.begin(), label.end()) + 2, 0);
    for (int x : label) c.starts[x + 1]++;
    for (size_t k = 1; k < c.starts.size(); k++) c.starts[k] += c.starts[k - 1];
    return c;
}

// Of the inputs of q k v, gate up or down.
inline ChannelClusters channel_clusters(const Extremes& all) {
    std::vector<double> points;
    for (size_t i = 0; i < all.lo.size(); i++) points.push_back(all.hi[i]), points.push_back(all.lo[i]);
    return clusters_of_labels(k_means(points, 2, RPTQ_CLUSTERS).label);
}

// The labels of each kv head's D channels, [KV * D], each head's from 0 on: of points whose coordinates are the largest and the least
// values of the places, over the heads of a place that belong to the kv head.
inline std::vector<int> head_labels(const std::vector<const Extremes*>& places, int KV, int D) {
    std::vector<int> labels;
    const int dims = 2 * (int)places.size();
    for (int kv = 0; kv < KV; kv++) {
        std::vector<double> points((size_t)D * dims);
        for (size_t p = 0; p < places.size(); p++) {
            const int share = (int)places[p]->lo.size() / D / KV;  // heads of this kv head
            for (int d = 0; d < D; d++) {
                float lo = INFINITY, hi = -INFINITY;
                for (int h = kv * share; h < (kv + 1) * share; h++)
                    lo = std::min(lo, places[p]->lo[h * D + d]), hi = std::max(hi, places[p]->hi[h * D + d]);
                points[(size_t)d * dims + p] = hi, points[(size_t)d * dims + places.size() + p] = lo;
            }
        }
        const KMeans found = k_means(points, dims, RPTQ_HEAD_CLUSTERS);
        labels.insert(labels.end(), found.label.begin(), found.label.end());
    }
    return labels;
}

// Each of the heads has the labels of its kv head, and clusters of its own.
inline ChannelClusters clusters_of_heads(const std::vector<int>& labels /*[KV * D]*/, int heads, int KV, int D) {
    std::vector<int> label;
    int first = 0;
    for (int h = 0; h < heads; h++) {
        const auto of_head = labels.begin() + (size_t)(h / (heads / KV)) * D;
        for (int d = 0; d < D; d++) label.push_back(first + of_head[d]);
        first += *std::max_element(of_head, of_head + D) + 1;
    }
    return clusters_of_labels(label);
}

// ---------------------------------------------------------------------------------------------------------------------
// Grids of activations

HOST_DEVICE Grid rptq_grid(float lo, float hi, int bits) {
    const float wide = (hi - lo) / (float)(1 << bits), scale = wide < 1e-4f ? 1e-4f : wide > 1e4f ? 1e4f : wide;
    return Grid{scale, rintf(-(hi + lo) / (2 * scale))};
}

// The static grid of each cluster, from its extremes in each sample.
inline std::vector<Grid> running_grids(const Extremes& e /*[samples, I]*/, const ChannelClusters& c, int bits) {
    const size_t I = c.label.size();
    std::vector<float> lo(c.n()), hi(c.n());
    for (size_t s = 0; s < e.lo.size() / I; s++)
        for (int k = 0; k < c.n(); k++) {
            float least = INFINITY, most = -INFINITY;
            for (int x = c.starts[k]; x < c.starts[k + 1]; x++)
                least = std::min(least, e.lo[s * I + c.order[x]]), most = std::max(most, e.hi[s * I + c.order[x]]);
            lo[k] = s ? 0.99f * lo[k] + 0.01f * least : least;
            hi[k] = s ? 0.99f * hi[k] + 0.01f * most : most;
        }
    std::vector<Grid> grids;
    for (int k = 0; k < c.n(); k++) grids.push_back(rptq_grid(lo[k], hi[k], bits));
    return grids;
}

// The grid of a place, whose numbers q keeps on the device until the next layer.
inline FlowGrid place_grid(Quantizer& q, int place, const ChannelClusters& c, int bits) {
    FlowGrid grid;
    grid.bits = bits, grid.sym = grid.zero = false;
    if (bits >= 16) return grid;
    FlowClusters& kept = q.clusters[place];
    const size_t I = c.label.size();
    if (q.opt.a_dynamic) {
        kept.order = Array<int>(I, "clusters"), kept.starts = Array<int>(c.starts.size(), "clusters");
        copy(kept.order.data, c.order.data(), I), copy(kept.starts.data, c.starts.data(), c.starts.size());
        grid.order = kept.order.data, grid.starts = kept.starts.data, grid.n_clusters = c.n();
        return grid;
    }
    const std::vector<Grid> grids = running_grids(q.extremes[place], c, bits);
    std::vector<float> scale, zero_point;
    for (int label : c.label) scale.push_back(grids[label].scale), zero_point.push_back(grids[label].zero);
    kept.scale = Array<float>(I, "static scales"), kept.zero_point = Array<float>(I, "static zeros");
    copy(kept.scale.data, scale.data(), I), copy(kept.zero_point.data, zero_point.data(), I);
    grid.scale = kept.scale.data, grid.zero_point = kept.zero_point.data;
    return grid;
}

// ---------------------------------------------------------------------------------------------------------------------
// Weights

// One block a row and cluster. The codes of a Grid begin at 0, those of rptq_grid at -2^(b-1).
KERNEL rptq_weight_grids_kernel(Grid* grids /*[O, n]*/, const float* W0 /*[O, I]*/, const int* order /*[I]*/,
                                const int* starts /*[n + 1]*/, int I, int bits) {
    float lo = INFINITY, hi = -INFINITY;
    for (int k = starts[blockIdx.y] + threadIdx.x; k < starts[blockIdx.y + 1]; k += blockDim.x) {
        const float w = W0[(size_t)blockIdx.x * I + order[k]];
        lo = w < lo ? w : lo, hi = w > hi ? w : hi;
    }
    lo = block_min(lo), hi = block_max(hi);
    if (threadIdx.x != 0) return;
    Grid grid = rptq_grid(lo, hi, bits);
    grid.zero += (float)(1 << (bits - 1));
    grids[(size_t)blockIdx.x * gridDim.y + blockIdx.y] = grid;
}

// Step 4. H [I, I] (both halves) = sum over the tokens of n sequences of x x^T. `where` names the layer and module in errors.
inline GptqResult rptq_weights(Group& group, const float* W0, const float* H, size_t n, const ChannelClusters& c,
                               const QuantOptions& opt, const std::string& where) {
    const HessianFactor f = hessian_factor(H, group.I, n, opt.damp, false, where, &c.order);
    FixedGrids fixed = {Array<Grid>((size_t)group.O * c.n(), "grids"), c.n(), c.label};
    {
        Array<int> order(c.order.size(), "clusters"), starts(c.starts.size(), "clusters");
        copy(order.data, c.order.data(), order.n), copy(starts.data, c.starts.data(), starts.n);
        launch(rptq_weight_grids_kernel, dim3(group.O, c.n()), 64, fixed.grids.data, W0, order.data, starts.data, group.I,
               opt.wbits);
    }
    return gptq_columns(group, W0, f, opt, nullptr, 0, &fixed);
}

inline void rptq_solve(Quantizer& q, Layer& layer, int g) {
    const Clock clock;
    Group& group = layer.groups[g];
    const std::string where = format("layer %d, %s", layer.index, group.name);
    const bool norm = g == 0 || g == 2;
    const int D = layer.D, H = layer.groups[1].I / D, KV = layer.groups[0].linears[1].O / D;
    Hessian h = std::move(q.hessian[g]);  // freed when this returns
    mirror_upper(h.H.data, group.I);
    const Array<float> W0 = checked_weights(layer, group);
    const Extremes all = overall(q.extremes[g], group.I, where);
    const std::vector<int> labels = g == 1 ? head_labels({&all}, KV, D) : std::vector<int>();
    const ChannelClusters c = g == 1 ? clusters_of_heads(labels, H, KV, D) : channel_clusters(all);
    const GptqResult result = rptq_weights(group, W0.data, h.H.data, h.n, c, q.opt, where);
    const std::vector<double> errors = output_errors(group, W0.data, h.H.data);
    group.grid = place_grid(q, g, c, norm && q.opt.abits < 16 ? q.opt.norm_abits : q.opt.abits);
    if (g == 1) {
        const Extremes queries = overall(q.extremes[Q_PLACE], H * D, format("layer %d, q", layer.index)),
                       keys = overall(q.extremes[K_PLACE], KV * D, format("layer %d, k", layer.index));
        const std::vector<int> qk = head_labels({&queries, &keys}, KV, D);
        layer.q_grid = place_grid(q, Q_PLACE, clusters_of_heads(qk, H, KV, D), q.opt.abits);
        layer.k_grid = place_grid(q, K_PLACE, clusters_of_heads(qk, KV, KV, D), q.opt.k_bits);
        layer.v_grid = place_grid(q, V_PLACE, clusters_of_heads(labels, KV, KV, D), q.opt.v_bits);
    }
    gptq_report(q, layer, g, result, errors, {}, clock.seconds());
}

// A group's Hessian is freed when it is solved.
inline size_t rptq_device_bytes(const Layer& layer, const QuantOptions& opt, size_t) {
    size_t most = 0, hessians = 0;
    for (int g = STAGES - 1; g >= 0; g--) {
        const Group& group = layer.groups[g];
        hessians += hessian_bytes(group);
        const size_t clusters = g == 1 ? group.I / layer.D * RPTQ_HEAD_CLUSTERS : RPTQ_CLUSTERS;
        const size_t grids = group.O * clusters * sizeof(Grid);
        most = std::max(most, hessian_solve_bytes(group, hessians, gptq_columns_bytes(group, opt) + grids));
    }
    return most;
}
