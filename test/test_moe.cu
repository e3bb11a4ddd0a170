// Mixtures of experts: the forward pass against transformers' Qwen3-MoE in float64 (test/golden/moe, scripts/golden/golden_moe.py) and
// against a float64 loop, routing against its definition, what config.json may say, the memory plan, and whole runs.
#include "golden.h"
#include "temp.h"
#include "test.h"

static Model moe_model() {
    Options o;
    o.model = "test/golden/moe";
    return model_open(o);
}

// bf16 rounds the router's logits, and a token may take another expert than in float64: there only most tokens are near.
static const bool EXACT = sizeof(floatX) == 4;

// How many rows of a differ from b by more than `tolerance` of b's largest value.
static int rows_apart(const std::vector<float>& a, const std::vector<float>& b, int width, double tolerance) {
    CHECK_EQ(a.size(), b.size());
    double largest = 0;
    for (float x : b) largest = std::max(largest, std::fabs((double)x));
    int apart = 0;
    for (size_t r = 0; r < a.size() / width; r++) {
        bool near = true;
        for (int i = 0; i < width; i++) near &= std::fabs((double)a[r * width + i] - b[r * width + i]) <= tolerance * largest;
        apart += !near;
    }
    return apart;
}

static std::vector<float> logits_after_all(const Model& m, std::vector<Stream>& one) {
    push_through(m, one);
    Head head = head_load(m);
    std::vector<int> rows(one[0].tokens.size());
    for (size_t i = 0; i < rows.size(); i++) rows[i] = (int)i;
    head_logits(m.config, head, one[0].x.data.data, rows);
    std::vector<float> logits(rows.size() * m.config.V);
    copy(logits.data(), head.logits.data, logits.size());
    return logits;
}

TEST(logits_are_those_of_transformers) {
    const Checkpoint reference = safetensors_open("test/golden/moe/reference.safetensors");
    const Model m = moe_model();
    const std::vector<int> tokens = golden<int>(reference, "tokens");
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(m.config, "test", tokens, 64, false));
    const std::vector<float> found = logits_after_all(m, streams), expected = golden<float>(reference, "logits");
    const int apart = rows_apart(found, expected, m.config.V, EXACT ? 1e-5 : 0.05);
    if (apart > (EXACT ? 0 : 6)) fail("the logits of %d of 64 tokens differ from transformers'", apart);
}

TEST(router_logits_and_expert_counts_are_those_of_transformers) {
    const Checkpoint reference = safetensors_open("test/golden/moe/reference.safetensors");
    const Model m = moe_model();
    const Config& c = m.config;
    CHECK(is_mixture(c, 0) && !is_mixture(c, 1) && is_mixture(c, 2));
    const std::vector<float> expected = golden<float>(reference, "router_logits");
    const std::vector<int> counts = golden<int>(reference, "expert_counts");
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", golden<int>(reference, "tokens"), 64, false));
    Stream& s = streams[0];
    s.x.width = c.C;
    s.x.data = Array<floatX>(64 * (size_t)c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, streams);
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l);
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        CHECK_EQ(layer.groups.size(), (size_t)(is_mixture(c, l) ? 2 + 2 * 8 : 4));
        for (int stage = 0; stage <= STAGES; stage++) {
            layer_stage(c, layer, stage, s.x.data.data, scratch.in.data, s.chunks[0], scratch);
            if (stage != 2 || !layer.router) continue;
            std::vector<floatX> logits(64 * 8);
            copy(logits.data(), scratch.out.data, logits.size());
            const float* of_layer = &expected[(size_t)(l / 2) * 64 * 8];
            for (size_t i = 0; i < logits.size(); i++) CHECK_NEAR(to_float(logits[i]), of_layer[i], EXACT ? 2e-5 : 0.15);
            const Routing& r = s.chunks[0].routing;
            for (int e = 0; e < 8; e++) CHECK_NEAR(r.first[e + 1] - r.first[e], counts[(size_t)(l / 2) * 8 + e], EXACT ? 0 : 3);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Routing, by its definition

static std::vector<float> made_up(size_t n, uint64_t seed, float scale = 1) {
    std::vector<float> x(n);
    for (size_t i = 0; i < n; i++) x[i] = to_float(to_bf16(scale * twelve_bits("moe", seed * 1000003 + i)));
    return x;
}

struct RoutingOf {
    std::vector<int> experts, places, tokens;
    std::vector<float> weights;
    std::vector<int> first;
};

static RoutingOf routing_of(const std::vector<float>& logits, int T, int E, int K, bool renormalize) {
    Routing r;
    Array<floatX> logits_d = upload(logits);
    route(r, logits_d.data, T, E, K, renormalize);
    RoutingOf host;
    auto ints = [](const Array<int>& from) {
        std::vector<int> to(from.n);
        copy(to.data(), from.data, from.n);
        return to;
    };
    host.experts = ints(r.experts), host.places = ints(r.places), host.tokens = ints(r.tokens);
    host.weights = download(r.weights), host.first = r.first;
    return host;
}

static void check_routing(const std::vector<float>& logits, int T, int E, int K, bool renormalize) {
    const RoutingOf r = routing_of(logits, T, E, K, renormalize);
    std::vector<std::vector<int>> of_expert(E);
    for (int t = 0; t < T; t++) {
        std::vector<int> order(E);
        for (int e = 0; e < E; e++) order[e] = e;
        const float* row = &logits[(size_t)t * E];
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b]; });
        double sum = 0, top = 0;
        for (int e = 0; e < E; e++) sum += std::exp((double)row[e] - row[order[0]]);
        for (int k = 0; k < K; k++) top += std::exp((double)row[order[k]] - row[order[0]]);
        std::sort(order.begin(), order.begin() + K);
        for (int k = 0; k < K; k++) {
            const int e = order[k];
            CHECK_EQ(r.experts[(size_t)t * K + k], e);
            const double p = std::exp((double)row[e] - *std::max_element(row, row + E)) / (renormalize ? top : sum);
            CHECK_NEAR(r.weights[(size_t)t * K + k], p, (EXACT ? 1e-6 : 0.005) * p + 1e-9);
            of_expert[e].push_back(t);
        }
    }
    int place = 0;
    for (int e = 0; e < E; e++) {
        CHECK_EQ(r.first[e], place);
        for (int t : of_expert[e]) CHECK_EQ(r.tokens[place++], t);
    }
    CHECK_EQ(r.first[E], T * K);
    for (int t = 0; t < T; t++)
        for (int k = 0; k < K; k++) {
            const int at = r.places[(size_t)t * K + k], e = r.experts[(size_t)t * K + k];
            CHECK(r.tokens[at] == t && at >= r.first[e] && at < r.first[e + 1]);
        }
}

TEST(routing_is_softmax_top_k_and_a_sort) {
    for (bool renormalize : {false, true})
        for (auto [T, E, K] : {std::array<int, 3>{1, 8, 3}, {7, 5, 5}, {300, 128, 8}, {65, 1, 1}, {40, 260, 6}})
            check_routing(made_up((size_t)T * E, T + E), T, E, K, renormalize);
}

TEST(equal_logits_go_to_the_first_experts) {
    check_routing(std::vector<float>(3 * 128, 0.5f), 3, 128, 8, true);
    check_routing({0.1f, 0.2f, 0.2f, 0.1f, 0.2f, 0.1f, 0.2f, 0.2f}, 1, 8, 3, true);
    const RoutingOf r = routing_of(std::vector<float>(128, 0.5f), 1, 128, 8, true);
    for (int k = 0; k < 8; k++) CHECK_EQ(r.experts[k], k);
}

TEST(logits_that_are_not_finite_stay_visible) {
    for (float bad : {NAN, INFINITY}) {
        std::vector<float> logits = made_up(2 * 8, 4);
        logits[3] = bad;
        const RoutingOf r = routing_of(logits, 2, 8, 3, true);
        for (int k = 0; k < 3; k++) CHECK(r.experts[k] == k && std::isnan(r.weights[k]) && std::isfinite(r.weights[3 + k]));
    }
}

// A stream of two chunks whose tokens go to these experts, two each.
static Stream routed_stream(const std::vector<int>& first, const std::vector<int>& second) {
    Stream s;
    for (const std::vector<int>& experts : {first, second}) {
        s.chunks.emplace_back();
        Routing& r = s.chunks.back().routing;
        r.T = (int)experts.size() / 2, r.K = 2, r.experts = to_device(experts);
    }
    return s;
}

TEST(tokens_that_go_to_other_experts_are_counted) {
    const Stream full = routed_stream({0, 1, 2, 3, 0, 3, 1, 2, 4, 5}, {1, 5, 0, 2});
    const Stream s = routed_stream({0, 1, 2, 4, 0, 3, 1, 2, 4, 5}, {1, 5, 1, 2});  // the second token, and the last
    ExpertReport r;
    count_other_experts(s, full, r);
    CHECK_EQ(r.moved, (size_t)2);
    CHECK_EQ(r.compared, (size_t)7);
    count_other_experts(full, full, r);  // another layer's are added
    CHECK_EQ(r.moved, (size_t)2);
    CHECK_EQ(r.compared, (size_t)14);
}

// ---------------------------------------------------------------------------------------------------------------------
// The mixture against a float64 loop: weights made up, routing given

static Config small_mixture(int E, int K) {
    Config c = moe_model().config;
    c.mixture = {E, K, 24, true, {true, true, true}};
    return c;
}

// From the normed inputs X to what is added to x, with experts as `logits` say.
static void check_mixture(int T, const std::vector<float>& logits, int E, int K) {
    const Config c = small_mixture(E, K);
    const int C = c.C, F = c.mixture.F;
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", std::vector<int>(T, 1), T, false));
    const Chunk& chunk = streams[0].chunks[0];
    Scratch scratch = scratch_alloc(c, streams);
    Layer layer = layer_alloc(c);
    std::vector<std::vector<float>> W;
    for (const Group& g : layer.groups) {
        W.push_back(made_up((size_t)g.O * g.I, 17 + W.size(), 0.25f));
        copy(g.W, upload(W.back()).data, W.back().size());
    }
    const std::vector<float> X = made_up((size_t)T * C, 3), x = made_up((size_t)T * C, 5);
    Array<floatX> x_d = upload(x), logits_d = upload(logits);
    copy(scratch.in.data, upload(X).data, X.size());
    route(chunk.routing, logits_d.data, T, E, K, true);
    for (int stage : {3, 4}) layer_stage(c, layer, stage, x_d.data, scratch.in.data, chunk, scratch);
    const std::vector<float> found = download(x_d), weights = download(chunk.routing.weights);
    std::vector<int> experts(chunk.routing.experts.n);
    copy(experts.data(), chunk.routing.experts.data, experts.size());
    double worst = 0;
    for (int t = 0; t < T; t++) {
        std::vector<double> y(C, 0);
        for (int k = 0; k < K; k++) {
            const int e = experts[(size_t)t * K + k];
            const std::vector<float>&gate_up = W[2 + e], &down = W[2 + E + e];
            std::vector<double> h(F);
            for (int f = 0; f < F; f++) {
                double gate = 0, up = 0;
                for (int i = 0; i < C; i++) {
                    gate += (double)gate_up[(size_t)f * C + i] * X[(size_t)t * C + i];
                    up += (double)gate_up[(size_t)(F + f) * C + i] * X[(size_t)t * C + i];
                }
                h[f] = gate / (1 + std::exp(-gate)) * up;
            }
            for (int o = 0; o < C; o++)
                for (int f = 0; f < F; f++) y[o] += weights[(size_t)t * K + k] * down[(size_t)o * F + f] * h[f];
        }
        for (int o = 0; o < C; o++) worst = std::max(worst, std::fabs(found[(size_t)t * C + o] - (x[(size_t)t * C + o] + y[o])));
    }
    if (!(worst <= (EXACT ? 1e-5 : 0.05))) fail("%d tokens, %d of %d experts: off by %g", T, K, E, worst);
}

TEST(a_mixture_is_the_weighted_sum_of_its_experts) {
    for (int T : {1, 7, 2048}) check_mixture(T, made_up((size_t)T * 8, T), 8, 3);
    check_mixture(50, made_up(50, 2), 1, 1);
    check_mixture(50, made_up(50 * 4, 3), 4, 4);
}

TEST(an_expert_without_tokens_and_one_with_all) {
    std::vector<float> logits = made_up(33 * 8, 9);
    for (int t = 0; t < 33; t++) logits[t * 8 + 5] = -9, logits[t * 8 + 2] = 9;
    const RoutingOf r = routing_of(logits, 33, 8, 3, true);
    CHECK_EQ(r.first[6] - r.first[5], 0);
    CHECK_EQ(r.first[3] - r.first[2], 33);
    check_mixture(33, logits, 8, 3);
}

// Two continuations of one beginning, as a trie has them, and each by itself.
TEST(a_trie_gives_what_separate_sequences_give) {
    const Model m = moe_model();
    const Config& c = m.config;
    std::vector<int> a, b, all;
    for (int i = 0; i < 30; i++) a.push_back((i * 37 + 5) % c.V);
    b = std::vector<int>(a.begin(), a.begin() + 20);
    for (int i = 0; i < 12; i++) b.push_back((i * 91 + 7) % c.V);
    all = a;
    all.insert(all.end(), b.begin() + 20, b.end());
    Stream s;
    s.name = "trie", s.tokens = all;
    s.segments = {{0, 20, -1, 0}, {20, 10, 0, 20}, {30, 12, 0, 20}};
    stream_make_chunks(c, s);
    std::vector<Stream> trie, first, second;
    trie.push_back(std::move(s));
    first.push_back(stream_of_windows(c, "a", a, 30, false)), second.push_back(stream_of_windows(c, "b", b, 32, false));
    const std::vector<float> together = logits_after_all(m, trie), of_a = logits_after_all(m, first),
                             of_b = logits_after_all(m, second);
    std::vector<float> separate = of_a;
    separate.insert(separate.end(), of_b.begin() + (size_t)20 * c.V, of_b.end());
    CHECK(rows_apart(together, separate, c.V, EXACT ? 1e-5 : 0.05) <= (EXACT ? 0 : 4));
}

// ---------------------------------------------------------------------------------------------------------------------
// config.json and tensors

static Config moe_config(const std::string& fields) {
    const TempFolder tmp;
    write_file(tmp / "config.json",
               "{\"model_type\": \"qwen3_moe\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": "
               "4, \"num_attention_heads\": 4, \"vocab_size\": 100" +
                   fields + "}");
    return config_load(tmp / "config.json");
}

TEST(settings_of_a_mixture) {
    const Config defaults = moe_config("");
    CHECK(defaults.mixture.E == 128 && defaults.mixture.K == 8 && defaults.mixture.F == 768 && !defaults.mixture.renormalize);
    CHECK(defaults.KV == 4 && defaults.D == 16 && defaults.qk_norm && !has_dense(defaults));
    const Config c =
        moe_config(", \"num_experts\": 16, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 8, \"norm_topk_prob\": true, "
                   "\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 77]");
    CHECK(c.mixture.E == 16 && c.mixture.K == 2 && c.mixture.F == 8 && c.mixture.renormalize);
    CHECK(!is_mixture(c, 0) && is_mixture(c, 1) && !is_mixture(c, 2) && !is_mixture(c, 3) && has_dense(c) && has_mixture(c));
    CHECK_EQ(moe_config(", \"num_local_experts\": 9, \"num_experts\": 9, \"mlp_only_layers\": null").mixture.E, 9);
    CHECK(!has_mixture(moe_config(", \"num_experts\": 0")));
    CHECK_ERROR(moe_config(", \"num_local_experts\": 9, \"num_experts\": 8"), "to be the same, found 8 and 9");
    CHECK_ERROR(moe_config(", \"num_experts\": 4, \"num_experts_per_tok\": 5"),
                "num_experts_per_tok up to num_experts, found 5 and 4");
    CHECK_ERROR(moe_config(", \"num_experts\": 1025"), "num_experts between 0 and 1024");
    CHECK_ERROR(moe_config(", \"decoder_sparse_step\": 0"), "decoder_sparse_step between 1");
    CHECK_ERROR(moe_config(", \"moe_intermediate_size\": 0"), "moe_intermediate_size between 1");
    CHECK_ERROR(moe_config(", \"mlp_only_layers\": [-1]"), "mlp_only_layers to be layers");
    CHECK_ERROR(moe_config(", \"mlp_only_layers\": 1"), "mlp_only_layers");
}

// Parameters of the published configurations, the tied embeddings counted once.
TEST(sizes_of_the_official_models) {
    for (auto [size, parameters] : {std::pair<const char*, size_t>{"0.6b", 596049920}, {"1.7b", 1720574976}, {"4b", 4022468096},
                                    {"8b", 8190735360}, {"14b", 14768307200}, {"32b", 32762123264}}) {
        const Config c = config_official(size);
        CHECK_EQ(layers_size(c, 0) + (c.tied ? 1 : 2) * (size_t)c.V * c.C + c.C, parameters);
        CHECK(c.qk_norm && c.D == 128 && c.KV == 8 && c.V == 151936);
    }
}

TEST(sizes_of_the_official_mixtures) {
    auto billions = [](const char* size, int experts) {
        const Config c = config_official(size);
        return (double)(layers_size(c, experts ? experts : c.mixture.E) + 2 * (size_t)c.V * c.C + c.C) / 1e9;
    };
    CHECK_NEAR(billions("30b-a3b", 0), 30.53, 0.005);
    CHECK_NEAR(billions("235b-a22b", 0), 235.09, 0.005);
    const Config c = config_official("235b-a22b");
    const TempFolder tmp;
    write_file(tmp / "config.json", config_json(c, "bfloat16"));
    const Config again = config_load(tmp / "config.json");
    CHECK(again.mixture.E == 128 && again.mixture.K == 8 && again.mixture.F == 1536 && again.mixture.renormalize &&
          !has_dense(again));
    CHECK(again.KV == 4 && again.model_type == "qwen3_moe" && again.qk_norm);
}

// A header alone, with one byte less than a tensor is enough to be refused by name.
TEST(fused_experts_are_refused_by_name) {
    const TempFolder tmp;
    write_bytes(tmp / "config.json", read_bytes("test/golden/moe/config.json"));
    std::string header =
        "{\"model.layers.0.mlp.experts.gate_up_proj\":{\"dtype\":\"F32\",\"shape\":[2,1,1],\"data_offsets\":[0,8]}}";
    while (header.size() % 8) header += ' ';
    std::string bytes(8, '\0');
    bytes[0] = (char)header.size();
    write_bytes(tmp / "model.safetensors", bytes + header + std::string(8, '\0'));
    Options o;
    o.model = tmp.path;
    CHECK_ERROR(model_open(o), "model.layers.0.mlp.experts.gate_up_proj holds all experts in one tensor");
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory

// 128 x 2048 tokens of calibration in chunks of 16384, as on a GPU, one text set of as many again.
static std::vector<Stream> planned_streams(const Config& c) {
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "calibration", std::vector<int>(1 << 18, 1), 16384, false));
    streams.push_back(stream_of_windows(c, "text", std::vector<int>(1 << 18, 1), 16384, true));
    return streams;
}

TEST(the_235b_mixture_is_planned_within_24_gb) {
    if (sizeof(floatX) == 4) SKIP("planned for bf16");
    Options o;
    o.method = "gptq", o.tasks = "wikitext2";
    const Config c = config_official("235b-a22b");
    const Method& method = method_find("gptq");
    const std::vector<Stream> streams = planned_streams(c);
    const size_t whole = working_bytes(o, c, method, streams, true);
    CHECK(whole > (size_t)20e9 && whole < (size_t)26e9);  // two layers 10 GB, 128 Hessians 8.6 GB, chunks 3 GB
    for (double GB : {23.2, 16.0}) {                      // 24 GB without CUDA's own; less
        const int n = plan_groups_at_once(o, c, method, streams, true, (size_t)(GB * 1e9));
        CHECK(n >= 1 && n <= 128);
        o.quant.groups_at_once = n;
        CHECK(working_bytes(o, c, method, streams, true) <= (size_t)(GB * 1e9));
        if (GB < 20) CHECK(n < 128);
    }
    o.quant.groups_at_once = 1;
    CHECK(working_bytes(o, c, method, streams, true) < whole - (size_t)7e9);
    const Config small = config_official("30b-a3b");
    CHECK_EQ(plan_groups_at_once(o, small, method, planned_streams(small), true, (size_t)23.2e9), 128);
    // Codes of a layer, which wait on the host for --format: attention's and 128 experts', a byte each, and 5 bytes a grid of 128.
    CHECK_EQ(packed_layer_bytes(small, o.quant), (size_t)0);
    o.quant.pack = true;
    const size_t linears = 2048 * (4096 + 2 * 512 + 4096) + (size_t)128 * 3 * 2048 * 768;
    CHECK_EQ(packed_layer_bytes(small, o.quant), linears + linears / 128 * 5);
}

// Whatever collects Hessians: of all groups from one pass, and two of each group with a pair's D.
TEST(every_method_with_hessians_takes_some_experts_at_a_time) {
    if (sizeof(floatX) == 4) SKIP("planned for bf16");
    const Config c = config_official("235b-a22b");
    const std::vector<std::vector<const char*>> methods = {
        {"-q", "gptq", "--no-true-sequential"}, {"-q", "billm"}, {"-q", "foem"}, {"-q", "gptaq"}};
    for (std::vector<const char*> args : methods) {
        args.insert(args.begin(), "qwen3");
        Options o = options_parse((int)args.size(), args.data());
        const Method method = method_for(o);
        std::vector<Stream> streams = planned_streams(c);
        if (method.order == Order::PAIRED) streams.push_back(stream_of_windows(c, "full", std::vector<int>(1 << 18, 1), 16384, false));
        const size_t whole = working_bytes(o, c, method, streams, true), room = (size_t)23.2e9;
        const int n = plan_groups_at_once(o, c, method, streams, true, room);
        CHECK(n >= 1 && n <= 128);
        o.quant.groups_at_once = n;
        const size_t planned = working_bytes(o, c, method, streams, true);
        if (planned > room) fail("-q %s: %zu bytes with %d experts at a time", o.method.c_str(), planned, n);
        o.quant.groups_at_once = 1;
        CHECK(working_bytes(o, c, method, streams, true) < whole - (size_t)7e9);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Whole runs on a checkpoint of made-up weights, with the bundled tokenizer and texts

static void write_moe_checkpoint(const TempFolder& tmp, int E = 8) {
    Model m;
    m.random = true;
    m.config = config_load("test/golden/moe/config.json");
    m.config.V = 2048, m.config.mixture.E = E;
    Config& c = m.config;
    {
        CheckpointWriter writer(tmp.path, checkpoint_specs(c));
        save_unquantized(writer, m, "model.embed_tokens.weight", {(size_t)c.V, (size_t)c.C});
        Layer layer = layer_alloc(c);
        for (int l = 0; l < c.L; l++) {
            layer_place(c, layer, l);
            for (const Param& p : layer_params(c, layer)) {
                load_param(m, p);
                save_param(writer, p);
            }
        }
        save_finish(writer, m, "{}");
    }
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"})
        write_bytes(tmp / name, read_bytes(std::string("data/tiny/") + name));
}

TEST(whole_runs_on_a_mixture) {
    skip_when_emulated();
    const TempFolder tmp, saved;
    remove(saved.path.c_str());
    write_moe_checkpoint(tmp);
    auto run = [&](std::vector<const char*> args) {
        args.insert(args.begin(), {"-m", tmp.path.c_str(), "--data", "data/tiny", "--limit", "2", "-e", "wikitext2"});
        return run_quietly(args);
    };
    const Report full = run({"-q", "fp16"});
    CHECK(std::isfinite(full.tasks[0].value));
    for (const char* method : {"rtn", "gptq", "gptaq", "foem", "awq", "billm", "smoothquant"}) {
        std::vector<const char*> args = {"-q", method, "--kl"};
        if (is_word_of(method, "gptaq foem")) args.insert(args.end(), {"-g", "32"});
        if (method != std::string("rtn")) args.insert(args.end(), {"-n", "2", "-l", "128"});
        if (method == std::string("gptq")) args.insert(args.end(), {"-g", "32", "--save", saved.path.c_str()});
        if (method == std::string("awq")) args.insert(args.end(), {"-g", "32"});
        if (method == std::string("smoothquant")) args.insert(args.end(), {"-a", "16"});
        const Report r = run(args), again = method == std::string("gptq") ? r : run(args);
        CHECK_EQ(r.tasks[0].value, again.tasks[0].value);
        CHECK_EQ(r.modules.size(), (size_t)(3 * 4 + 2 * 8 * 3 + 3));
        CHECK_EQ(r.experts.layers.size(), (size_t)2);
        size_t tokens = 0;
        for (size_t n : r.experts.layers[1].tokens) tokens += n;
        CHECK_EQ(tokens, (size_t)3 * (method == std::string("rtn") ? r.tasks[0].tokens : 2 * 128));
        CHECK(r.kl[0].kl > 0 && r.experts.compared == 2 * r.tasks[0].tokens && r.experts.moved < r.experts.compared);
        CHECK(r.experts.moved > 0 && report_json(r).find("\"other_experts_percent\": ") != std::string::npos);
        const std::string text = report_json(r);
        json_parse(text.data(), text.size(), "the report");
        if (method == std::string("rtn")) {
            const TempFolder packed;
            remove(packed.path.c_str());
            const Report of_packed =
                run({"-q", "rtn", "-g", "32", "--save", packed.path.c_str(), "--format", "compressed-tensors"});
            CHECK_EQ(run_quietly({"-m", packed.path.c_str(), "--data", "data/tiny", "--limit", "2"}).tasks[0].value,
                     of_packed.tasks[0].value);
        }
        if (method != std::string("gptq")) continue;
        const Report loaded = run_quietly({"-m", saved.path.c_str(), "--data", "data/tiny", "--limit", "2"});
        CHECK_EQ(loaded.tasks[0].value, r.tasks[0].value);
    }
    CHECK_ERROR(run_quietly({"-m", "data/tiny", "-q", "gptq", "--calibrate-all-experts"}),
                "expected a mixture of experts, found qwen3");
}

TEST(whole_runs_on_a_rotated_mixture) {
    skip_when_emulated();
    const TempFolder tmp, saved;
    remove(saved.path.c_str());
    write_moe_checkpoint(tmp);
    auto run = [&](const std::string& model, std::vector<const char*> args) {
        args.insert(args.begin(), {"-m", model.c_str(), "--data", "data/tiny", "--limit", "2"});
        return run_quietly(args);
    };
    const double straight = run(tmp.path, {}).tasks[0].value;
    const Report rotated = run(tmp.path, {"-q", "fp16", "--rotate", "--kl"});
    // In bf16 tokens take other experts.
    CHECK_NEAR(rotated.kl[0].kl, 0, EXACT ? 1e-6 : 2e-2);
    if (EXACT) CHECK(rotated.experts.moved * 1000 <= rotated.experts.compared);
    const double offline = run(tmp.path, {"-q", "rtn", "-b", "8", "-g", "32", "--rotate-offline", "-e", "wikitext2", "--save", saved.path.c_str()}).tasks[0].value;
    CHECK_NEAR(run(saved.path, {}).tasks[0].value, offline, (EXACT ? 1e-4 : 1e-2) * offline);
    CHECK_NEAR(offline, straight, 0.1 * straight);
    for (const char* method : {"gptq", "gptaq"}) {
        const std::vector<const char*> args = {"-q", method, "-g", "32", "-n", "2", "-l", "128", "-a", "8", "--kv-bits", "8", "--rotate", "--learn-rotation", "--kl"};
        const Report r = run(tmp.path, args);
        CHECK(std::isfinite(r.kl[0].kl) && r.kl[0].kl > 0);
        CHECK_EQ(r.tasks[0].value, run(tmp.path, args).tasks[0].value);
    }
}

// What a run says it needs is what it takes; with less it takes some experts at a time and ends with the same bytes.
TEST(the_plan_of_a_mixture_is_what_is_needed) {
    skip_when_emulated();
    const TempFolder tmp;
    write_moe_checkpoint(tmp, 32);  // so that their Hessians outweigh attention's
    const Array<floatX> x = to_device(std::vector<floatX>(3 * 64));  // cuBLAS's workspace, which is there once, is not in the plan
    gemm(x.data, x.data + 64, x.data + 128, 8, 8, 8);
    MemoryUse& use = memory_used(Place::Device);
    struct Planned {
        size_t bytes;
        std::string weights;
    };
    auto run = [&](std::vector<const char*> args, size_t at_most) {
        const TempFolder saved;
        remove(saved.path.c_str());
        const std::string GB = format("%.9f", at_most * 1e-9);
        args.insert(args.end(), {"-m", tmp.path.c_str(), "--data", "data/tiny", "--save", saved.path.c_str()});
        if (at_most) args.insert(args.end(), {"--device-memory", GB.c_str()});
        const size_t before = use.peak = use.now;
        const size_t planned = run_quietly(args).planned_device, peak = use.peak - before;
        if (planned < peak || planned > (at_most ? 1.25 : 1.1) * peak) fail("%s: %zu bytes were planned, and %zu needed", args[1], planned, peak);
        return Planned{planned, read_bytes(saved / "model.safetensors")};
    };
    for (const char* method : {"rtn", "awq", "smoothquant", "gptq", "gptq --no-true-sequential", "gptq --calibrate-all-experts", "gptq --rotate-offline",
                               "foem", "gptaq", "billm"}) {
        std::vector<std::string> words = {"-q"};
        std::istringstream in(method);
        for (std::string word; in >> word;) words.push_back(word);
        std::vector<const char*> args;
        for (const std::string& word : words) args.push_back(word.c_str());
        if (!is_word_of(words[1], "billm smoothquant")) args.insert(args.end(), {"-g", "32"});
        if (words[1] != "rtn") args.insert(args.end(), {"-n", "2", "-l", "64"});
        const Planned all = run(args, 0);
        if (!is_word_of(words[1], "gptq foem gptaq billm")) continue;
#ifdef __CUDACC__
        // A GPU keeps room for CUDA itself, and activations, of which it holds as many as fit, don't make groups wait: at most
        // two streams of 128 tokens, each of no more than twice C (128) and the widest input (128).
        const size_t less = all.bytes + CUDA_BYTES - 2 * 128 * (128 + 128) * sizeof(floatX) - 1000;
#else
        const size_t less = all.bytes - 1000;
#endif
        const Planned some = run(args, less);
        if (some.bytes + 30000 > all.bytes) fail("%s: %zu bytes of %zu, some at a time", method, some.bytes, all.bytes);
        CHECK(some.weights == all.weights);
    }
}
