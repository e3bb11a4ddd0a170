// What holds only where parts meet: few-bit activations in a mixture, a pair of streams through a rotated layer, activations in host
// memory, given rotations and where they land, several sets in one run, papers' cells in a run.
#include "golden.h"
#include "moe_layer.h"
#include "temp.h"
#include "test.h"
#include <random>
#include <set>

static Options parse(std::vector<const char*> args) {
    args.insert(args.begin(), "qwen3");
    return options_parse((int)args.size(), args.data());
}

// ---------------------------------------------------------------------------------------------------------------------
// Few-bit activations in a mixture

// x [n] as 4 bits hold it: one symmetric grid.
static std::vector<double> on_four_bits(const std::vector<double>& x) {
    float most = 1e-5f;
    for (double v : x) most = std::max(most, std::fabs((float)v));
    const float scale = most / 7;
    std::vector<double> rounded;
    for (double v : x) rounded.push_back(to_float(to_floatX(scale * std::clamp(std::nearbyintf((float)v / scale), -8.0f, 7.0f))));
    return rounded;
}

// What the experts of a token whose normed inputs are X [C] add to the stream, [C]; with `bits` the inputs of each are rounded.
static std::vector<double> experts_of_token(const MoeLayer& l, std::vector<double> X, const int* experts, const float* weights, bool bits) {
    const int C = l.m.config.C, F = l.m.config.mixture.F;
    std::vector<double> y(C, 0);
    if (bits) X = on_four_bits(X);
    for (int k = 0; k < l.m.config.mixture.K; k++) {
        const std::vector<float>&gate_up = l.W0[l.gate_up(experts[k])], &down = l.W0[l.down(experts[k])];
        auto product = [&](int row) {
            double sum = 0;
            for (int i = 0; i < C; i++) sum += gate_up[(size_t)row * C + i] * X[i];
            return (double)to_float(to_floatX((float)sum));
        };
        std::vector<double> h;
        for (int f = 0; f < F; f++) {
            const double gate = product(f);
            h.push_back(to_float(to_floatX((float)(gate / (1 + std::exp(-gate)) * product(F + f)))));
        }
        if (bits) h = on_four_bits(h);
        for (int o = 0; o < C; o++)
            for (int f = 0; f < F; f++) y[o] += weights[k] * down[(size_t)o * F + f] * h[f];
    }
    return y;
}

TEST(inputs_of_experts_are_rounded_to_their_bits) {
    MoeLayer l;
    const Config& c = l.m.config;
    const Chunk& chunk = l.streams[0].chunks[0];
    const size_t T = (size_t)chunk.T, K = (size_t)c.mixture.K;
    Array<floatX> x = to_device(l.x0), added = to_device(std::vector<floatX>(T * c.C));
    for (int stage = 0; stage <= 2; stage++) layer_stage(c, l.layer, stage, x.data, l.scratch.in.data, chunk, l.scratch);
    const std::vector<float> X = MoeLayer::values(l.scratch.in.data, T * c.C), weights = download(chunk.routing.weights);
    std::vector<int> experts(chunk.routing.experts.n);
    copy(experts.data(), chunk.routing.experts.data, experts.size());
    layer_set_grids(l.layer, parse({"-q", "rtn", "-a", "4"}).quant, c.D, true);
    for (int stage = 3; stage <= 4; stage++) layer_stage(c, l.layer, stage, added.data, l.scratch.in.data, chunk, l.scratch);
    const std::vector<float> found = download(added);
    // A value between two codes may fall the other way: few tokens may be apart. Unrounded nearly all are.
    size_t apart[2] = {0, 0};
    for (size_t t = 0; t < T; t++)
        for (bool bits : {false, true}) {
            const std::vector<double> y =
                experts_of_token(l, std::vector<double>(&X[t * c.C], &X[t * c.C] + c.C), &experts[t * K], &weights[t * K], bits);
            double largest = 0, off = 0;
            for (int i = 0; i < c.C; i++) largest = std::max(largest, std::fabs(y[i])), off = std::max(off, std::fabs(found[t * c.C + i] - y[i]));
            apart[bits] += !(off <= (EXACT ? 1e-4 : 0.02) * largest);
        }
    if (!(apart[true] <= (EXACT ? T / 100 : T / 10) && apart[false] >= T * 9 / 10))
        fail("of %zu tokens %zu are not those of 4-bit inputs, %zu not those of 16-bit ones", T, apart[true], apart[false]);
}

// The calibration stream is then what the quantized layer makes of its tokens with such activations.
TEST(inputs_of_experts_may_be_rounded_in_calibration) {
    for (const char* method : {"gptq", "gptaq"}) {
        const std::vector<const char*> args = {"-q", method, "-a", "4", "--a-in-calibration"};
        MoeLayer l, plain;
        l.quantize(args);
        layer_set_grids(l.layer, parse(args).quant, l.m.config.D, true);
        layer_forward(l.m.config, l.layer, plain.streams[0], plain.scratch);
        CHECK(download(l.streams[0].x.data) == download(plain.streams[0].x.data));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A pair of streams through a rotated layer

TEST(the_other_stream_of_a_pair_goes_through_a_rotated_mixture_as_it_was) {
    MoeLayer l, plain;
    Rotation r = rotation_for(parse({"-q", "gptaq", "--rotate", "-a", "4", "--kv-bits", "4"}), l.m.config);
    rotation_draw_r2(r, 0);
    for (MoeLayer* one : {&l, &plain}) {
        rotate_layer(one->layer, r), one->layer.rotation = &r;
        for (Stream& s : one->streams) stream_rotate(s, r, false, one->scratch);
    }
    l.quantize({"-q", "gptaq"});
    layer_forward(plain.m.config, plain.layer, plain.streams[1], plain.scratch);
    CHECK(download(l.streams[1].x.data) == download(plain.streams[1].x.data));
    layer_forward(l.m.config, l.layer, plain.streams[0], plain.scratch);
    CHECK(download(l.streams[0].x.data) == download(plain.streams[0].x.data));
}

// A run of the bundled model up to the end of its sweep, with these tokens, if any, in its streams' place.
struct Sweeping {
    Run run;
    Scratch scratch;
    Sweeping(std::vector<const char*> args, const std::vector<int>& tokens = {}) {
        args.insert(args.begin(), {"-m", "data/tiny", "--data", "data/tiny"});
        run.options = parse(args), run.method = method_for(run.options), run.quantizer.opt = run.options.quant;
        run.model = model_open(run.options);
        const Config& c = run.model.config;
        if (run.options.rotate) run.rotation = rotation_for(run.options, c);
        if (tokens.empty()) add_streams(run, "data/tiny");
        else run.streams.push_back(stream_of_windows(c, "given", tokens, (int)tokens.size(), false));
        for (size_t s = 0; s < run.first_full(); s++) run.streams[s].rest = run.rotation.rest;
        place_streams(run.options, run.model, run.method, run.streams);
        for (Stream& s : run.streams) stream_embed(run.model, s);
        scratch = scratch_alloc(c, run.streams);
        rotate_streams(run, false, scratch);
        sweep(run, scratch, nullptr);
    }
};

TEST(the_other_stream_of_a_pair_is_the_rotated_full_precision_model) {
    skip_when_emulated();
    const std::vector<const char*> rotated = {"--rotate", "--kv-bits", "4", "-a", "4", "--limit", "1"};
    std::vector<const char*> args = {"-q", "gptaq", "-b", "2", "-n", "1", "-l", "200"};
    args.insert(args.end(), rotated.begin(), rotated.end());
    const Sweeping pair(args);
    const Sweeping full({"-q", "fp16", "--rotate", "--rotate-only", "r1,r2,r3,r4"}, pair.run.streams[1].tokens);
    CHECK(download(pair.run.streams[1].x.data) == download(full.run.streams[0].x.data));
    CHECK(download(pair.run.streams[0].x.data) != download(full.run.streams[0].x.data));
}

// ---------------------------------------------------------------------------------------------------------------------
// Activations in host memory, as on a GPU that has no room for them

TEST(activations_in_host_memory_give_the_same_bytes) {
#ifdef EMULATED  // one of each order
    const std::vector<std::vector<const char*>> methods = {{"-q", "gptq"}, {"-q", "gptaq"}, {"-q", "billm"}, {"-q", "smoothquant"}};
#else
    const std::vector<std::vector<const char*>> methods = {
        {"-q", "rtn"},   {"-q", "gptq"},        {"-q", "gptq", "--no-true-sequential"}, {"-q", "gptaq"}, {"-q", "foem", "--alpha", "0.5"},
        {"-q", "billm"}, {"-q", "smoothquant"}, {"-q", "awq", "-g", "32"}};
#endif
    for (const auto& args : methods) {
        MoeLayer device, host(Place::Host);
        device.quantize(args), host.quantize(args);
        if (all_weights(device) != all_weights(host)) fail("%s: other weights", args[1]);
        for (int s = 0; s < 2; s++)
            if (download(device.streams[s].x.data) != download(host.streams[s].x.data)) fail("%s: another stream %d", args[1], s);
    }
}

// The head takes a chunk's rows in several batches, and beside each the full-precision model's.
TEST(streams_in_host_memory_have_the_same_scores) {
    Options o;
    o.model = "data/tiny";
    const Model m = model_open(o);
    const Config& c = m.config;
    std::vector<int> tokens;
    for (int i = 0; i < 128; i++) tokens.push_back((int)(random_bits(i) % c.V));
    std::vector<std::vector<float>> scores, divergences;
    for (Place place : {Place::Device, Place::Host}) {
        std::vector<Stream> streams;
        for (int k = 0; k < 2; k++) {
            streams.push_back(stream_of_windows(c, "test", tokens, 64, true));
            streams[k].x.width = c.C;
            streams[k].x.data = Array<floatX>(tokens.size() * c.C, "activations", place);
            stream_embed(m, streams[k]);
        }
        // The second one is other than the first.
        std::vector<float> x = download(streams[1].x.data);
        for (size_t i = 0; i < x.size(); i++) x[i] += 0.5f * twelve_bits("together", i);
        copy(streams[1].x.data.data, upload(x).data, x.size());
        Scratch scratch = scratch_alloc(c, streams);
        Head head = head_load(m);
        head.batch = 7;
        stream_score(c, head, streams[0], &streams[1], scratch, nullptr);
        scores.push_back(streams[0].logprobs), divergences.push_back(streams[0].kl);
    }
    CHECK(scores[0] == scores[1] && scores[0].size() == 126);
    CHECK(divergences[0] == divergences[1] && divergences[0].size() == 126);
    CHECK(*std::min_element(divergences[0].begin(), divergences[0].end()) > 1e-4f);
}

// ---------------------------------------------------------------------------------------------------------------------
// Given rotations: signed permutations move each weight to one place, so that it can be seen where

struct SignedPermutation {
    std::vector<int> from, sign;  // R[from[j], j] = sign[j]
    SignedPermutation(int n, uint64_t seed) {
        std::mt19937_64 random(seed);
        for (int i = 0; i < n; i++) from.push_back(i), sign.push_back(random() % 2 ? 1 : -1);
        std::shuffle(from.begin(), from.end(), random);
    }
    void append_to(std::vector<float>& matrices) const {
        const size_t n = from.size(), at = matrices.size();
        matrices.resize(at + n * n, 0);
        for (size_t j = 0; j < n; j++) matrices[at + from[j] * n + j] = (float)sign[j];
    }
};

// --rotate-offline: q' = (W diag(gain)) R1, v' = R2^T (W diag(gain)) R1, o' = R1^T W R2, R2 the layer's and the kv head's.
TEST(given_rotations_land_where_they_belong) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string file = tmp / "given.safetensors", saved = tmp / "saved";
    const Config c = config_load("data/tiny/config.json");
    const int C = c.C, D = c.D;
    const SignedPermutation R1(C, 1);
    std::vector<SignedPermutation> R2;
    for (int i = 0; i < c.L * c.KV; i++) R2.push_back(SignedPermutation(D, 2 + i));
    {
        std::vector<float> r1, r2;
        R1.append_to(r1);
        for (const SignedPermutation& r : R2) r.append_to(r2);
        SafetensorsWriter writer(file, {{"R1", "F32", {(size_t)C, (size_t)C}}, {"R2", "F32", {(size_t)c.L, (size_t)c.KV, (size_t)D, (size_t)D}}});
        writer.write("R1", r1.data(), r1.size() * sizeof(float)), writer.write("R2", r2.data(), r2.size() * sizeof(float));
        writer.finish();
    }
    run_quietly({"-m", "data/tiny", "-q", "fp16", "--rotate-offline", "--rotation", file.c_str(), "--save", saved.c_str()});
    const Checkpoint before = checkpoint_open("data/tiny"), after = checkpoint_open(saved);
    auto values = [](const Checkpoint& ck, const std::string& name, size_t rows, size_t columns) {
        const TensorView& t = columns ? checkpoint_get(ck, name, {rows, columns}) : checkpoint_get(ck, name, {rows});
        std::vector<float> x(tensor_size(t));
        tensor_to_f32(t, 0, x.size(), x.data());
        return x;
    };
    auto stored = [](float x) { return to_float(to_floatX(x)); };
    size_t wrong = 0;
    for (int l : {0, c.L - 1}) {
        const std::string layer = format("model.layers.%d.", l), attention = layer + "self_attn.";
        const std::vector<float> gain = values(before, layer + "input_layernorm.weight", C, 0);
        const size_t Q = (size_t)c.H * D, V = (size_t)c.KV * D;
        const std::vector<float> q = values(before, attention + "q_proj.weight", Q, C), q_after = values(after, attention + "q_proj.weight", Q, C),
                                 v = values(before, attention + "v_proj.weight", V, C), v_after = values(after, attention + "v_proj.weight", V, C),
                                 o = values(before, attention + "o_proj.weight", C, Q), o_after = values(after, attention + "o_proj.weight", C, Q);
        for (int j = 0; j < C; j++) {
            const int i = R1.from[j];
            for (size_t row = 0; row < Q; row++) wrong += q_after[row * C + j] != stored(R1.sign[j] * (q[row * C + i] * gain[i]));
            for (size_t row = 0; row < V; row++) {
                const SignedPermutation& r = R2[l * c.KV + row / D];
                const size_t source = row / D * D + r.from[row % D];
                wrong += v_after[row * C + j] != stored(R1.sign[j] * r.sign[row % D] * (v[source * C + i] * gain[i]));
            }
            for (size_t column = 0; column < Q; column++) {
                const SignedPermutation& r = R2[l * c.KV + column / D / (c.H / c.KV)];
                const size_t source = column / D * D + r.from[column % D];
                wrong += o_after[j * Q + column] != stored(R1.sign[j] * r.sign[column % D] * o[i * Q + source]);
            }
        }
    }
    if (wrong) fail("%zu weights are not where R1 and R2 put them", wrong);
}

// ---------------------------------------------------------------------------------------------------------------------
// Runs

// Each set's numbers are those of a run with that set alone.
TEST(several_sets_in_one_run_are_each_their_own) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string file = tmp / "questions";
    const std::vector<const char*> asks = {"--questions", file.c_str()}, compares = {"--kl"};
    auto run = [&](const char* tasks, const std::vector<const char*>& more) {
        std::vector<const char*> args = {"-m", "data/tiny", "--data", "data/tiny", "-q", "rtn", "-b", "2", "--limit", "2", "-e", tasks};
        args.insert(args.end(), more.begin(), more.end());
        return run_quietly(args);
    };
    const Report all = run("wikitext2,c4,piqa,boolq", {"--kl", "--questions", file.c_str()});
    CHECK(all.tasks.size() == 4 && all.kl.size() == 2);
    const char* texts[] = {"wikitext2", "c4"};
    for (size_t i = 0; i < 2; i++) {
        const Report alone = run(texts[i], compares);
        CHECK_EQ(all.tasks[i].task, texts[i]);
        CHECK_EQ(all.tasks[i].value, alone.tasks[0].value);
        CHECK(all.kl[i].task == texts[i] && all.kl[i].kl == alone.kl[0].kl && all.kl[i].top1 == alone.kl[0].top1);
    }
    CHECK(all.kl[0].kl != all.kl[1].kl && all.tasks[0].value != all.tasks[1].value);
    const Report piqa = run("piqa", asks), boolq = run("boolq", asks);
    CHECK(!piqa.questions.empty() && piqa.questions != boolq.questions);
    CHECK_EQ(all.questions, piqa.questions + boolq.questions);
    CHECK(all.tasks[2].value == piqa.tasks[0].value && all.tasks[3].value == boolq.tasks[0].value);
}

// The paper has numbers of the official sets alone, and of its own calibration texts.
TEST(a_run_on_other_texts_has_no_papers_cells) {
    skip_when_emulated();
    Sweeping s({"-q", "rtn", "-e", "wikitext2,piqa", "--limit", "1"});
    Run& run = s.run;
    CHECK(!run.sets[0].official && !run.exams[0].set.official);
    run.report.paper.cells = {{"wikitext2", "6.99"}, {"piqa", "79.4"}};
    evaluate_heads(run, s.scratch);
    CHECK_EQ(run.report.tasks.size(), (size_t)2);
    for (const TaskResult& t : run.report.tasks) CHECK(t.paper.empty() && !t.official);
    run.report.tasks.clear(), run.sets[0].official = run.exams[0].set.official = true;
    evaluate_heads(run, s.scratch);
    CHECK(run.report.tasks[0].paper == "6.99" && run.report.tasks[1].paper == "79.4");

    for (const char* style : {"paper", "lm-eval"}) {  // the paper's MMLU is of its own style
        Sweeping mmlu({"-q", "rtn", "-e", "mmlu", "--mmlu-style", style, "--limit", "1"});
        mmlu.run.report.paper.cells = {{"mmlu", "25.0"}}, mmlu.run.exams[0].set.official = true;
        evaluate_heads(mmlu.run, mmlu.scratch);
        CHECK_EQ(mmlu.run.report.tasks[0].paper, mmlu.run.options.mmlu_style == "paper" ? "25.0" : "");
    }

    for (const std::vector<const char*>& args : {std::vector<const char*>{"-q", "gptq", "-n", "1", "-l", "64"}, {"-q", "awq"}}) {
        Run calibrated;
        calibrated.options = parse(args), calibrated.options.model = "data/tiny";
        calibrated.method = method_for(calibrated.options), calibrated.model = model_open(calibrated.options);
        calibrated.report.paper.cells = {{"wikitext2", "6.99"}}, calibrated.report.others.push_back(calibrated.report.paper);
        add_calibration(calibrated, tokenizer_load("data/tiny"), "data/tiny");
        CHECK(calibrated.report.paper.cells.empty() && calibrated.report.others.empty());
        CHECK(calibrated.report.not_the_papers == std::vector<std::string>{"calibration texts"});
        CHECK(calibrated.report.notes.back().find("no paper's cells stand beside this row") == 0);
    }
}

// The official train shard is known by its number of lines, one text each, and by the first of them, which the data set's card shows.
TEST(calibration_texts_are_official_by_their_number_and_first) {
    skip_when_emulated();
    const TempFolder tmp;
    std::filesystem::create_directory(tmp / "c4");
    const Tokenizer tokenizer = tokenizer_load("data/tiny");
    const std::string other = "{\"text\": \"one two three\"}\n",
                      first = "{\"text\": \"Beginners BBQ Class Taking Place in Missoula!\\nDo you want to get better at making delicious BBQ? You will have "
                              "the opportunity, put this on your calendar now. Thursday, September 22nd join World Class BBQ Champion, Tony Balay from "
                              "Lonestar Smoke Rangers. He will be teaching a beginner level class for everyone who wants to get better with their "
                              "culinary skills.\\nHe will teach you everything you need to know to compete in a KCBS BBQ competition, including "
                              "techniques, recipes, timelines, meat selection and trimming, plus smoker and fire information.\\nThe cost to be in the "
                              "class is $35 per person, and for spectators it is free. Included in the cost will be either a t-shirt or apron and you "
                              "will be tasting samples of each meat that is prepared.\"}\n";
    struct Case {
        int n;
        const std::string& first;
        const char* variant;
    };
    for (const Case& c : {Case{356317, first, "356317 train documents"}, Case{356316, first, "356316 train documents, not the official 356317"},
                          Case{356317, other, "356317 train documents, not those of the official first shard"}}) {
        std::string lines = c.first;
        for (int i = 1; i < c.n; i++) lines += other;
        write_bytes(tmp / "c4/train.jsonl", lines);
        const TextSet set = calibration_set(tokenizer, tmp.path, "c4", 4, 2, 0);
        const bool official = c.n == 356317 && &c.first == &first;
        CHECK_EQ(set.official, official);
        CHECK_EQ(set.variant, c.variant);
        CHECK_EQ(awq_calibration_set(tokenizer, tmp.path, 4, 8).official, official);
        file_stamps().clear();  // the file is written anew
    }
}

// With a real vocabulary saving the embeddings and the head takes more than the layers do.
TEST(the_plan_has_room_for_what_is_saved) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string wide = tmp / "wide", plain = tmp / "plain", rotated = tmp / "rotated";
    std::filesystem::create_directory(wide);
    std::string config = read_bytes("data/tiny/config.json");
    const std::string from = "\"vocab_size\": 2048";
    config.replace(config.find(from), from.size(), "\"vocab_size\": 40000");
    write_bytes(wide + "/config.json", config);
    {
        const Checkpoint tiny = checkpoint_open("data/tiny");
        std::vector<TensorSpec> specs;
        for (const TensorView& t : tiny.tensors) specs.push_back({t.name, t.dtype, t.shape});
        for (TensorSpec& spec : specs)
            if (spec.name == "model.embed_tokens.weight") spec.shape[0] = 40000;
        SafetensorsWriter writer(wide + "/model.safetensors", specs);
        for (const TensorView& t : tiny.tensors) {
            std::string bytes((const char*)t.data, t.n_bytes);
            if (t.name == "model.embed_tokens.weight") bytes.resize(bytes.size() / 2048 * 40000);
            writer.write(t.name, bytes.data(), bytes.size());
        }
        writer.finish();
    }
    const Array<floatX> x = to_device(std::vector<floatX>(3 * 64));  // cuBLAS's workspace, which is there once, is not in the plan
    gemm(x.data, x.data + 64, x.data + 128, 8, 8, 8);
    MemoryUse& use = memory_used(Place::Device);
    for (const std::vector<const char*>& args : {std::vector<const char*>{"-m", wide.c_str(), "-q", "rtn", "--save", plain.c_str()},
                                                 {"-m", wide.c_str(), "-q", "rtn", "--rotate-offline", "--save", rotated.c_str()}}) {
        const size_t before = use.peak = use.now, planned = run_quietly(args).planned_device, peak = use.peak - before;
        if (planned < peak || planned > 1.1 * peak) fail("%zu bytes of device memory were planned, and %zu needed", planned, peak);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What a row says of its settings

// Every flag is either one that takes the paper's cells away, each tried here, or one that leaves them.
TEST(every_flag_that_makes_another_row_is_said) {
    static const char* changes[][6] = {
        {"--rotate", "rtn"}, {"--rotate-offline", "rtn"}, {"--rotate-only", "rtn", "r1", "--rotate"}, {"--rotate-block", "rtn", "64", "--rotate"},
        {"--learn-rotation", "gptq"}, {"--rotation", "rtn", "file"}, {"--kv-bits", "rtn", "4"}, {"--k-bits", "rtn", "4"}, {"--v-bits", "rtn", "4"},
        {"--kv-clip", "rtn", "0.9", "--kv-bits", "4"}, {"--p-bits", "rtn", "8"}, {"--a-asym", "rtn", "", "-a", "8"}, {"--a-heads", "rtn", "", "-a", "8"},
        {"--a-group", "rtn", "64", "-a", "8"}, {"--a-clip", "rtn", "0.9", "-a", "8"}, {"--a-in-calibration", "gptq", "", "-a", "8"},
        {"--norm-abits", "rptq", "16", "-a", "8"}, {"--a-dynamic", "rptq", "", "-a", "8"},
        {"--sym", "gptq"}, {"--sym-signed", "gptq"}, {"--mse", "gptq"}, {"--no-act-order", "gptq"}, {"--static-groups", "gptq"},
        {"--no-true-sequential", "gptq"}, {"--damp", "gptq", "0.02"}, {"--first-token-weight", "gptq", "2"}, {"--calibrate-all-experts", "gptq"},
        {"--alpha", "smoothquant", "0.8"}, {"--beta", "foem", "0.2"}, {"--no-clip", "awq"}, {"--salient-metric", "billm", "magnitude"},
        {"-c", "gptq", "wikitext2"}, {"-n", "gptq", "64"}, {"-l", "gptq", "1024"}, {"--seed", "gptq", "1"}, {"--limit", "rtn", "3"},
        {"--logits", "rtn", "file"}};
    static const char* leaves =  // act-order is the default already; a preset is the flags that it stands for
        "-m -q -b -a -g -e --kl --bf16-scores --mmlu-style --data --save --format --json --questions --device-memory --no-smooth --act-order --preset "
        "--tokenize -h";
    std::set<std::string> tried;
    for (const auto& change : changes) {
        std::vector<const char*> args = {"-q", change[1], change[0]};
        for (int i = 2; i < 6 && change[i]; i++)
            if (*change[i]) args.push_back(change[i]);
        const std::vector<std::string> differences = not_the_papers(parse(args));
        if (!std::count(differences.begin(), differences.end(), change[0])) fail("%s is not said to be other than the paper's", change[0]);
        tried.insert(change[0]);
    }
    Options o;
    for (const Flag& f : all_flags(o))
        if (f.kind != Flag::SECTION && !tried.count(f.name) && !is_word_of(f.name, leaves)) fail("%s: does it change a row?", f.name);
}

TEST(settings_other_than_the_papers_get_no_cell) {
    CHECK(not_the_papers(parse({"-q", "fp16"})).empty());  // in a float build, too
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "-b", "4"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "-b", "4", "--sym"}))[0], "--sym");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "-n", "16"}))[0], "-n");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "--limit", "4"}))[0], "--limit");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "--first-token-weight", "64"}))[0], "--first-token-weight");
    CHECK_EQ(not_the_papers(parse({"-q", "awq", "--no-clip"}))[0], "--no-clip");
    // What changes nothing is no difference.
    CHECK(not_the_papers(parse({"-q", "fp16", "--seed", "1"})).empty());
    CHECK_EQ(not_the_papers(parse({"-q", "rtn", "--seed", "1"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "rtn", "--rotate", "--seed", "1"}))[0], "--seed");
    CHECK_EQ(not_the_papers(parse({"-q", "smoothquant", "--no-smooth", "--seed", "1"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "smoothquant", "--seed", "1"}))[0], "--seed");
    CHECK_EQ(not_the_papers(parse({"-q", "awq", "--seed", "42"})).empty(), sizeof(floatX) == 2);  // its rule's own
    CHECK_EQ(not_the_papers(parse({"-q", "awq", "--seed", "0"}))[0], "--seed");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "--seed", "1"}))[0], "--seed");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "-g", "-1", "--static-groups"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "--static-groups"}))[0], "--static-groups");
    CHECK_EQ(not_the_papers(parse({"-q", "smoothquant", "--no-smooth"})).empty(), sizeof(floatX) == 2);
    // What says the default again is the paper's, but for the samples of AWQ, whose own rule they would turn off.
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "-c", "c4", "-n", "128", "-l", "2048", "--seed", "0", "--damp", "0.01", "--limit", "0", "--act-order",
                                   "-e", "mmlu", "--mmlu-style", "paper"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "gptaq", "--alpha", "0.25"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "foem", "--alpha", "0.25"}))[0], "--alpha");
    CHECK_EQ(not_the_papers(parse({"-q", "gptq", "--no-act-order"}))[0], "--no-act-order");
    CHECK_EQ(not_the_papers(parse({"-q", "awq", "-n", "128"}))[0], "-n");
    CHECK_EQ(not_the_papers(parse({"-q", "rptq", "-a", "16", "--p-bits", "16"})).empty(), sizeof(floatX) == 2);
    CHECK_EQ(not_the_papers(parse({"-q", "rptq", "-a", "4", "--kv-bits", "8"}))[0], "--kv-bits");
    CHECK_ERROR(parse({"-q", "gptq", "--no-clip"}), "it belongs to awq");
    CHECK_ERROR(parse({"-q", "gptq", "--first-token-weight", "0.5"}), "expected 1 to 1e6");
    CHECK_ERROR(parse({"-q", "rtn", "--first-token-weight", "2"}), "it belongs to gptq billm");
    CHECK_EQ(parse({"-q", "rtn"}).quant.group_size, -1);
    CHECK_EQ(parse({"-q", "gptq"}).quant.group_size, 128);
    CHECK_EQ(parse({"-q", "gptq", "-g", "-1"}).quant.group_size, -1);
    CHECK_EQ(parse({"-e", "ppl"}).tasks, "ppl");
    CHECK_EQ(task_list("ppl,wikitext2").size(), (size_t)2);
    CHECK(task_list("mmlu,piqa,ppl") == (std::vector<std::string>{"wikitext2", "c4", "piqa", "mmlu"}));
    CHECK_EQ(task_list("zeroshot").size(), (size_t)6);
    CHECK_EQ(task_list("all").size(), (size_t)9);
    CHECK_ERROR(parse({"-e", "hella"}), "did you mean hellaswag?");
    CHECK_ERROR(parse({"-e", "c4", "--mmlu-style", "lm-eval"}), "expected the task mmlu");
    CHECK_ERROR(parse({"-e", "mmlu", "--mmlu-style", "other"}), "expected paper, lm-eval or both");
    CHECK_ERROR(parse({"-e", "c4", "--bf16-scores"}), "expected tasks with choices");
    CHECK_ERROR(parse({"-e", "ppl", "--questions", "x"}), "expected tasks with choices");
    CHECK_ERROR(parse({"-q", "rtn", "-e", "mmlu", "--kl"}), "expected text sets");
    CHECK(not_the_papers(parse({"-e", "all", "--mmlu-style", "lm-eval"})).empty());  // that column alone has no cell
    CHECK_EQ(not_the_papers(parse({"-q", "rtn", "-e", "zeroshot", "--bf16-scores"})).empty(), sizeof(floatX) == 2);
}

// "options" of the report, of the log and of quantization.json.
TEST(a_row_says_its_methods_settings) {
    const std::pair<std::vector<const char*>, const char*> rows[] = {
        {{"rtn", "-b", "3"}, "{\"bits\": 3, \"activation_bits\": 16, \"group_size\": -1, \"sym\": false, \"mse\": false}"},
        {{"gptq"}, "{\"bits\": 4, \"activation_bits\": 16, \"group_size\": 128, \"sym\": false, \"mse\": false, \"act_order\": true, "
                   "\"static_groups\": false, \"true_sequential\": true, \"damp\": 0.01}"},
        {{"gptq", "-b", "3", "-g", "64", "--sym", "--mse", "--static-groups", "--no-true-sequential", "--damp", "0.05", "--first-token-weight", "2",
          "--calibrate-all-experts"},
         "{\"bits\": 3, \"activation_bits\": 16, \"group_size\": 64, \"sym\": true, \"mse\": true, \"first_token_weight\": 2, "
         "\"calibrate_all_experts\": true, \"act_order\": true, \"static_groups\": true, \"true_sequential\": false, \"damp\": 0.05}"},
        {{"gptq", "--no-act-order", "--sym-signed", "-a", "8", "--a-asym", "--a-group", "64", "--a-clip", "0.5", "--a-in-calibration"},
         "{\"bits\": 4, \"activation_bits\": 8, \"group_size\": 128, \"activation_asymmetric\": true, \"activation_clip\": 0.5, "
         "\"activation_group\": 64, \"activation_heads\": false, \"sym\": \"signed\", \"mse\": false, \"act_order\": false, "
         "\"static_groups\": false, \"true_sequential\": true, \"damp\": 0.01, \"a_in_calibration\": true}"},
        {{"gptaq", "--alpha", "0.75"}, "{\"bits\": 4, \"activation_bits\": 16, \"group_size\": 128, \"sym\": false, \"mse\": false, \"act_order\": true, "
                                       "\"static_groups\": false, \"true_sequential\": true, \"damp\": 0.01, \"alpha\": 0.75}"},
        {{"foem", "--alpha", "0.5", "--beta", "0.25"},
         "{\"bits\": 4, \"activation_bits\": 16, \"group_size\": 128, \"sym\": false, \"mse\": false, \"act_order\": true, "
         "\"static_groups\": false, \"true_sequential\": true, \"damp\": 0.01, \"alpha\": 0.5, \"beta\": 0.25}"},
        {{"awq"}, "{\"bits\": 4, \"activation_bits\": 16, \"group_size\": 128, \"clipping\": true}"},
        {{"awq", "--no-clip"}, "{\"bits\": 4, \"activation_bits\": 16, \"group_size\": 128, \"clipping\": false}"},
        {{"smoothquant"}, "{\"bits\": 8, \"activation_bits\": 8, \"group_size\": -1, \"smooth\": true, \"alpha\": 0.5}"},
        {{"smoothquant", "--no-smooth", "-b", "4"}, "{\"bits\": 4, \"activation_bits\": 8, \"group_size\": -1, \"smooth\": false}"},
        {{"billm", "--salient-metric", "magnitude"},
         "{\"bits\": 1, \"activation_bits\": 16, \"group_size\": 128, \"salient_metric\": \"magnitude\", \"damp\": 0.01}"},
        {{"rptq", "-a", "4", "--norm-abits", "16", "--a-dynamic"},
         "{\"bits\": 4, \"activation_bits\": 4, \"group_size\": -1, \"norm_activation_bits\": 16, \"activation_grids\": \"dynamic\", \"damp\": 0.01}"}};
    for (const auto& row : rows) {
        std::vector<const char*> args = row.first;
        args.insert(args.begin(), "-q");
        const Options o = parse(args);
        CHECK_EQ(json_settings(method_settings(o, method_for(o))), row.second);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Groups of more rows than are computed at once

TEST(output_errors_of_many_rows_are_their_definition) {
    const int O = 2500, first = 2100, I = 16, T = 24;
    CHECK(O > OUTPUT_ERROR_ROWS);
    std::vector<float> W0, W, X;
    for (int i = 0; i < O * I; i++) W0.push_back(twelve_bits("weights", i)), W.push_back(std::nearbyint(W0[i] * 8) / 8);  // exact in bf16
    for (int i = 0; i < T * I; i++) X.push_back(twelve_bits("inputs", i));
    std::vector<float> H(I * I, 0), Xt(I * T), row_scale(O);
    for (int o = 0; o < O; o++) row_scale[o] = 1 + o % 3;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < I; i++) {
            Xt[i * T + t] = X[t * I + i];
            for (int j = 0; j < I; j++) H[i * I + j] += X[t * I + i] * X[t * I + j];
        }
    auto expected = [&](int begin, int end, bool scaled) {
        double error = 0, size = 0;
        for (int o = begin; o < end; o++)
            for (int t = 0; t < T; t++) {
                double delta = 0, y = 0;
                for (int i = 0; i < I; i++) {
                    delta += ((double)W0[o * I + i] - W[o * I + i]) * X[t * I + i];
                    y += (double)W0[o * I + i] * X[t * I + i];
                }
                const double scale = scaled ? row_scale[o] : 1;
                error += delta * delta * scale * scale, size += y * y * scale * scale;
            }
        return std::sqrt(error / size);
    };
    const Array<floatX> quantized = upload(W);
    const Array<float> before = to_device(W0), hessian = to_device(H);
    const Group group = {"test", O, I, quantized.data, nullptr, 2, {{"a", 0, first}, {"b", first, O - first}}};
    const std::vector<double> errors = output_errors(group, before.data, hessian.data);
    const std::vector<double> awq = awq_output_errors(group, before, row_scale, AwqTokens{to_device(Xt), T});
    CHECK(errors.size() == 2 && awq.size() == 2);
    for (int k = 0; k < 2; k++) {
        const int begin = k ? first : 0, end = k ? O : first;
        CHECK_NEAR(errors[k], expected(begin, end, false), 1e-4 * errors[k]);
        CHECK_NEAR(awq[k], expected(begin, end, true), 1e-4 * awq[k]);
    }
}
