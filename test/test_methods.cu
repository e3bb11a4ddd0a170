// What every quantization method must do alike: stop at NaN and Inf with the place named, give the same bytes twice, lose as much as
// it must and no more on the bundled model, and be reachable by one command for every row of the paper's tables.
#include "golden.h"
#include "temp.h"
#include "test.h"
#include <functional>

static constexpr int LAYER = 2;  // of the bundled model, where things are planted

static std::vector<const char*> joined(std::vector<const char*> a, const std::vector<const char*>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

static Options parse(std::vector<const char*> args) {
    args.insert(args.begin(), "qwen3");
    return options_parse((int)args.size(), args.data());
}

static bool calibrates(const std::vector<const char*>& method) { return method_for(parse(method)).collect != nullptr; }

// The methods that quantize, and the variant that works without calibration.
static std::vector<std::vector<const char*>> methods() {
    std::vector<std::vector<const char*>> list = {{"-q", "smoothquant", "--no-smooth"}};
    for (const Method& m : METHODS)
        if (m.order != Order::NONE) list.push_back({"-q", m.name});
    return list;
}

// The statement must fail, and in words that contain `text`; `who` tells which of the many cases it was.
template <class F> static void check_fails(const std::string& who, const std::string& text, F statement) {
    std::string message = "no error";
    try {
        statement();
    } catch (const std::exception& e) {
        message = e.what();
    }
    if (message.find(text) == std::string::npos) fail("%s: expected \"%s\", got: %s", who.c_str(), text.c_str(), message.c_str());
}

// ---------------------------------------------------------------------------------------------------------------------
// NaN and Inf behind the loader's back: in one layer and its calibration stream, when both are in memory

struct OneLayer {
    Model model;
    Layer layer;
    std::vector<Stream> streams;
    OneLayer() {
        Options o;
        o.model = "data/tiny";
        model = model_open(o);
        const Config& c = model.config;
        layer = layer_alloc(c);
        layer.index = LAYER;
        for (const Param& p : layer_params(c, layer)) load_param(model, p);
        std::vector<int> tokens;
        for (int i = 0; i < 96; i++) tokens.push_back((i * i + 11) % c.V);
        for (int i = 0; i < 2; i++) streams.push_back(stream_of_windows(c, "calibration", tokens, 32, false));  // or a pair
        for (Stream& s : streams) {
            s.x.width = c.C, s.in.width = widest_input(c);
            s.x.data = Array<floatX>(tokens.size() * s.x.width, "activations");
            s.in.data = Array<floatX>(tokens.size() * s.in.width, "activations");
            stream_embed(model, s);
        }
    }
    void quantize(const std::vector<const char*>& args) {
        const Options o = parse(args);
        const Method method = method_for(o);
        Scratch scratch = scratch_alloc(model.config, streams);
        ForwardContext forward = {model.config, streams[0], scratch};
        Quantizer q;
        q.opt = o.quant;
        q.forward = &forward;
        q.n_calibration = streams[0].tokens.size(), q.sample_length = 32;
        quantize_layer(model.config, layer, method, q, &streams[0], scratch);
    }
};

static void plant(floatX* at, float value) { copy(at, upload({value}).data, 1); }

TEST(every_method_takes_a_sound_layer) {
    for (const auto& method : methods()) OneLayer().quantize(method);
}

TEST(every_method_names_a_bad_weight) {
    skip_when_emulated();
    for (const auto& method : methods())
        for (int g = 0; g < 4; g++)
            for (float bad : {NAN, -INFINITY}) {
                OneLayer l;
                const Group& group = l.layer.groups[g];
                const Linear& linear = group.linears[group.n_linears - 1];
                plant(group.W + (size_t)(linear.row + 1) * group.I + 77, bad);
                check_fails(method[1], format("layer 2, %s: weights of input channel 77 are NaN or Inf", linear.name),
                            [&] { l.quantize(method); });
            }
}

// Finite, but no grid can be laid over them.
TEST(every_method_names_weights_that_are_too_large) {
    for (const auto& method : methods()) {
        OneLayer l;
        plant(l.layer.groups[1].W, 3e38f), plant(l.layer.groups[1].W + 1, -3e38f);
        // AWQ judges q, k and v by what comes out of o.
        check_fails(method[1], std::string("layer 2, ") + (method[1] == std::string("awq") ? "qkv:" : "o_proj:"),
                    [&] { l.quantize(method); });
    }
}

TEST(every_method_that_calibrates_names_the_module_with_a_bad_input) {
    for (const auto& method : methods()) {
        if (!calibrates(method)) continue;
        const bool awq = method[1] == std::string("awq");
#ifdef EMULATED
        const std::vector<float> values = {NAN};  // minutes less
        const int next_gain = 2;
#else
        const std::vector<float> values = {NAN, INFINITY};
        const int next_gain = 1;
#endif
        for (float bad : values) {
            {
                OneLayer l;
                plant(l.streams[0].x.data.data + 40 * l.model.config.C + 9, bad);
                check_fails(method[1], "layer 2, qkv: ", [&] { l.quantize(method); });
            }
            const char* module_after[] = {"qkv", "gate_up", awq ? "qkv" : "o", awq ? "qkv" : "o"};
            for (int k = 0; k < 4; k += next_gain) {
                OneLayer l;
                floatX* gains[] = {l.layer.input_norm, l.layer.post_norm, l.layer.q_norm, l.layer.k_norm};
                plant(gains[k] + 9, bad);
                check_fails(method[1], format("layer 2, %s: ", module_after[k]), [&] { l.quantize(method); });
            }
        }
        OneLayer l;  // a gain that is finite, but not what it is multiplied with
        plant(l.layer.post_norm + 9, 3e38f);
        check_fails(method[1], "layer 2, gate_up: ", [&] { l.quantize(method); });
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// NaN and Inf in a file

// The bundled model with `value` in place of the tensor's values number 9, 9 + stride, ...; stride 0: of the first of them.
static std::string damaged(const TempFolder& tmp, const std::string& tensor, float value, size_t stride) {
    for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"})
        write_bytes(tmp / name, read_bytes(std::string("data/tiny/") + name));
    Checkpoint ck = checkpoint_open("data/tiny");
    const TensorView* t = checkpoint_find(ck, tensor);
    CHECK(t && t->dtype == "BF16");
    const size_t n = tensor_size(*t), offset = (size_t)((const char*)t->data - ck.files[0].data);
    std::string bytes = read_bytes(t->file);
    const bf16 planted = to_bf16(value);
    for (size_t i = 9; i < (stride ? n : 10); i += stride ? stride : n) memcpy(&bytes[offset + 2 * i], &planted, 2);
    write_bytes(tmp / "model.safetensors", bytes);
    return tmp.path;
}

static std::vector<std::vector<const char*>> methods_and_full_precision() {
    auto list = methods();
    list.push_back({"-q", "fp16"});
    return list;
}

static void run_small(const std::string& model, const std::vector<const char*>& method) {
    std::vector<const char*> args = joined({"-m", model.c_str(), "--data", "data/tiny", "--limit", "1"}, method);
    if (calibrates(method)) args = joined(args, {"-n", "2", "-l", "128"});
    run_quietly(args);
}

TEST(a_bad_weight_or_gain_in_a_file_is_named) {
    skip_when_emulated();
    const struct {
        const char* tensor;
        float value;
        const char* count;
    } places[] = {{"model.layers.1.mlp.up_proj.weight", NAN, "1 of 131072"},
                  {"model.layers.0.self_attn.o_proj.weight", INFINITY, "1 of 131072"},
                  {"model.layers.0.self_attn.k_norm.weight", NAN, "1 of 128"},
                  {"model.layers.0.input_layernorm.weight", -INFINITY, "1 of 256"}};
    for (const auto& place : places) {
        const TempFolder tmp;
        const std::string model = damaged(tmp, place.tensor, place.value, 0);
        for (const auto& method : methods_and_full_precision())
            check_fails(method[1], std::string(place.tensor) + ": " + place.count + " values are NaN or Inf",
                        [&] { run_small(model, method); });
    }
    const TempFolder tmp;
    const std::string model = damaged(tmp, "model.norm.weight", NAN, 0);
    check_fails("fp16", "model.norm.weight: 1 of 256 values are NaN or Inf", [&] { run_small(model, {"-q", "fp16"}); });
}

TEST(bad_activations_are_named_with_their_module) {
    skip_when_emulated();
    const struct {
        const char* tensor;
        size_t stride;
        float value;
        const char *calibration, *evaluation;  // what the message says where the method meets it, and where the evaluation does
    } places[] = {{"model.embed_tokens.weight", 256, NAN, "layer 0, qkv: ", "model.embed_tokens.weight, rows for wikitext2"},
                  {"model.layers.1.self_attn.q_norm.weight", 0, 3e38f, "layer 1, ", "layer 1, o: its input for wikitext2"}};
    for (const auto& place : places) {
        const TempFolder tmp;
        const std::string model = damaged(tmp, place.tensor, place.value, place.stride);
        for (const auto& method : methods_and_full_precision())
            check_fails(method[1], calibrates(method) ? place.calibration : place.evaluation, [&] { run_small(model, method); });
    }
    const TempFolder tmp;
    const std::string model = damaged(tmp, "model.norm.weight", 3e38f, 0);
    for (const auto& method : methods_and_full_precision())
        check_fails(method[1], "head: the log-probability of token", [&] { run_small(model, method); });
}

// ---------------------------------------------------------------------------------------------------------------------
// Determinism

// The report without what is measured, and the saved files' bytes.
static std::string everything_of_a_run(const std::vector<const char*>& method, int threads) {
#ifndef __CUDACC__
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
#endif
    const TempFolder tmp;
    const std::string saved = tmp / "saved";
    std::vector<const char*> args = {"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "-e", "c4", "--save", saved.c_str()};
    if (calibrates(method)) args = joined(args, {"-n", "3", "-l", "200"});
    Report r = run_quietly(joined(args, method));
#ifndef __CUDACC__
    omp_set_num_threads(before);
#endif
    (void)threads;
    r.seconds_load = r.seconds_quantize = r.seconds_evaluate = r.seconds_total = 0;
    r.peak_host = r.peak_device = 0;
    r.device = "";  // says how many threads there are
    std::vector<std::string> files;
    for (const auto& file : std::filesystem::directory_iterator(saved)) files.push_back(file.path());
    std::sort(files.begin(), files.end());
    CHECK(files.size() >= 4);
    std::string all = report_json(r) + report_text(r);
    for (const std::string& file : files) all += std::filesystem::path(file).filename().string() + "\n" + read_bytes(file);
    return all;
}

TEST(every_method_twice_gives_the_same_bytes) {
    skip_when_emulated();
    for (std::vector<const char*> method : methods()) {
        if (method[1] == std::string("rtn")) method = joined(method, {"-b", "3", "-g", "128", "--kl"});
        if (method[1] == std::string("gptq")) method = joined(method, {"-a", "8"});
        const std::string once = everything_of_a_run(method, 2);
        CHECK(once.size() > 7000000);
        if (everything_of_a_run(method, 2) != once) fail("%s: two runs differ", method[1]);
        if (everything_of_a_run(method, 1) != once) fail("%s: one thread and two differ", method[1]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Device memory: what a run says it needs decides whether it starts and where activations live

static void check_plan(std::vector<const char*> args, const std::vector<const char*>& method) {
    if (calibrates(method)) args = joined(args, {"-n", "3", "-l", "200"});
    MemoryUse& use = memory_used(Place::Device);
    const size_t before = use.peak = use.now;
    const double planned = (double)run_quietly(joined(args, method)).planned_device, peak = (double)(use.peak - before);
    if (planned < peak || planned > 1.1 * peak)
        fail("%s: %.0f bytes of device memory were planned, and %.0f needed", method[1], planned, peak);
}

TEST(the_plan_of_device_memory_is_what_is_needed) {
    skip_when_emulated();
    const std::vector<std::vector<const char*>> variants = {
        {"-q", "gptq", "-g", "-1"},        {"-q", "gptq", "--no-true-sequential"},
        {"-q", "gptq", "--static-groups"}, {"-q", "gptq", "-g", "5", "--static-groups"},
        {"-q", "awq", "-g", "-1"},         {"-q", "awq", "--no-clip"},
        {"-q", "foem", "--alpha", "0.25"}, {"-q", "rtn", "--rotate-offline"},
        {"-q", "gptaq", "--rotate-offline"}, {"-q", "rtn", "--kl"}};
    auto all = methods_and_full_precision();
    all.insert(all.end(), variants.begin(), variants.end());
    const Array<floatX> x = to_device(std::vector<floatX>(3 * 64));  // cuBLAS's workspace, which is there once, is not in the plan
    gemm(x.data, x.data + 64, x.data + 128, 8, 8, 8);
    for (const auto& method : all) {
        const TempFolder tmp;
        const std::string saved = tmp / "saved";
        const bool kl = method.back() == std::string("--kl");
        if (!kl) check_plan({"-m", "data/tiny", "--data", "data/tiny", "--save", saved.c_str()}, method);  // the sweep alone
        check_plan({"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "-e", "c4"}, method);          // the head needs more
    }
}

TEST(what_does_not_fit_is_refused_in_a_sentence) {
    std::string message;
    try {
        run_quietly({"-m", "data/tiny", "--data", "data/tiny", "--limit", "1", "--device-memory", "0.01"});
    } catch (const std::runtime_error& e) {
        message = e.what();
    }
    CHECK_EQ(message.find("not enough memory: "), (size_t)0);
    CHECK(message.find(" GB are needed on the device and ") != std::string::npos);
    CHECK(message.find(" GB are free. HINT: fewer calibration samples (-n), fewer tasks (-e), more --device-memory, or a smaller model") != std::string::npos);
}

// ---------------------------------------------------------------------------------------------------------------------
// Orders that any correct implementation must show. Differences of perplexity on the same windows are far smaller than their
// standard errors suggest, since those are of the texts.

static Report run_tiny(const std::vector<const char*>& method) {
    std::vector<const char*> args = joined({"-m", "data/tiny", "--data", "data/tiny", "--limit", "1"}, method);
    if (calibrates(method)) args = joined(args, {"-n", "4", "-l", "256"});
    return run_quietly(args);
}

static double ppl(const std::vector<const char*>& method) { return run_tiny(method).tasks[0].value; }

TEST(eight_bits_lose_nothing) {
    skip_when_emulated();
    const double full = ppl({"-q", "fp16"});
    for (const auto& method : std::vector<std::vector<const char*>>{{"-q", "rtn", "-g", "-1"},
                                                                    {"-q", "rtn", "-g", "128"},
                                                                    {"-q", "gptq", "-g", "-1"},
                                                                    {"-q", "gptq", "-g", "128"},
                                                                    {"-q", "awq", "-g", "-1"},
                                                                    {"-q", "awq", "-g", "128"},
                                                                    {"-q", "smoothquant", "-a", "16"},
                                                                    {"-q", "smoothquant", "-a", "8"}})
        CHECK_NEAR(ppl(joined(method, {"-b", "8"})), full, 0.005 * full);
}

TEST(activations_of_four_bits_are_bad) {
    skip_when_emulated();
    const double full = ppl({"-q", "fp16"}), w8a8 = ppl({"-q", "smoothquant"}),
                 w4a8 = ppl({"-q", "smoothquant", "-b", "4", "-a", "8"}), w4a4 = ppl({"-q", "smoothquant", "-b", "4", "-a", "4"});
    CHECK_NEAR(w8a8, full, 0.003 * full);
    CHECK(w4a8 > 1.003 * w8a8 && w4a8 < 1.03 * full);
    CHECK(w4a4 > 1.03 * w4a8 && w4a4 > 1.04 * full);
    CHECK(w4a4 - full > 3 * (w4a8 - full));
}

TEST(every_method_goes_with_quantized_activations) {
    skip_when_emulated();
    for (const auto& method :
         std::vector<std::vector<const char*>>{{"-q", "rtn"}, {"-q", "gptq"}, {"-q", "gptaq"}, {"-q", "awq"}, {"-q", "billm"}}) {
        const Report a16 = run_tiny(method), a8 = run_tiny(joined(method, {"-a", "8"}));
        const double before = a16.tasks[0].value, after = a8.tasks[0].value;
        CHECK_EQ(a8.abits, 8);
        CHECK(after != before);
        CHECK_NEAR(after, before, 0.01 * before);
        // What is calibrated on never has its activations quantized, so the weights are the same.
        CHECK_EQ(a8.modules.size(), a16.modules.size());
        for (size_t i = 0; i < a8.modules.size(); i++) CHECK_EQ(a8.modules[i].error, a16.modules[i].error);
    }
    CHECK(ppl({"-q", "gptq", "-a", "4"}) > 1.02 * ppl({"-q", "gptq", "-a", "8"}));
}

// ---------------------------------------------------------------------------------------------------------------------
// Pairs of streams

// The run's streams and modules after the sweep, and the saved layers.
struct Swept {
    Run run;
    std::string tensors;  // model.safetensors
    std::vector<float> stream(size_t s) const { return download(run.streams[s].x.data); }
};

// `then` sees the saved folder, which goes afterwards.
static Swept swept(const std::vector<const char*>& method,
                   const std::function<void(const Swept&, const std::string&)>& then = nullptr) {
    file_stamps().clear();  // of an earlier one's folder, which is gone
    const TempFolder tmp;
    const std::string saved = tmp / "saved";
    Swept s;
    Run& run = s.run;
    std::vector<const char*> args = {"-m", "data/tiny", "--data", "data/tiny", "-n", "3", "-l", "200", "--save", saved.c_str()};
    run.options = parse(joined(args, method));
    run.method = method_for(run.options), run.quantizer.opt = run.options.quant, run.model = model_open(run.options);
    add_streams(run, "data/tiny");
    place_streams(run.options, run.model, run.method, run.streams);
    for (Stream& stream : run.streams) stream_embed(run.model, stream);
    Scratch scratch = scratch_alloc(run.model.config, run.streams);
    CheckpointWriter writer(saved, checkpoint_specs(run.model.config));
    save_unquantized(writer, run.model, "model.embed_tokens.weight", {(size_t)run.model.config.V, (size_t)run.model.config.C});
    sweep(run, scratch, &writer);
    save_finish(writer, run.model, "{}");
    s.tensors = read_bytes(saved + "/model.safetensors");
    if (then) then(s, saved);
    return s;
}

TEST(gptaq_and_foem_without_their_terms_save_gptqs_checkpoint) {
    skip_when_emulated();
    for (const std::vector<const char*>& options : {std::vector<const char*>{"-b", "3"}, {"-b", "2", "-g", "-1", "--no-act-order"}}) {
        const std::string gptq = swept(joined({"-q", "gptq"}, options)).tensors;
        CHECK(swept(joined({"-q", "gptaq", "--alpha", "0"}, options)).tensors == gptq);
        CHECK(swept(joined({"-q", "foem", "--beta", "0"}, options)).tensors == gptq);
        CHECK(swept(joined({"-q", "foem"}, options)).tensors != gptq);
        const std::string gptaq = swept(joined({"-q", "gptaq"}, options)).tensors;
        CHECK(swept(joined({"-q", "foem", "--beta", "0", "--alpha", "0.25"}, options)).tensors == gptaq && gptaq != gptq);
    }
}

// Before the first layer the two streams are the same.
TEST(gptaq_begins_as_gptq) {
    skip_when_emulated();
    const Swept gptq = swept({"-q", "gptq", "-b", "3"}), gptaq = swept({"-q", "gptaq", "-b", "3"});
    const TempFolder tmp;
    write_bytes(tmp / "gptq.safetensors", gptq.tensors), write_bytes(tmp / "gptaq.safetensors", gptaq.tensors);
    const Checkpoint a = safetensors_open(tmp / "gptq.safetensors"), b = safetensors_open(tmp / "gptaq.safetensors");
    const auto same = [&](const char* name) { return golden<uint8_t>(a, name) == golden<uint8_t>(b, name); };
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        CHECK(same(format("model.layers.0.self_attn.%s.weight", name).c_str()));
        CHECK(!same(format("model.layers.1.self_attn.%s.weight", name).c_str()));
    }
    CHECK(!same("model.layers.0.self_attn.o_proj.weight"));
    const ModuleReport& q = gptaq.run.quantizer.reports[0];
    CHECK_EQ(q.values[1].first, std::string("objective"));
    CHECK_NEAR(q.values[1].second, q.error * q.error, 1e-4 * q.error * q.error);
}

TEST(the_full_precision_stream_of_a_pair_is_the_full_precision_model) {
    skip_when_emulated();
    for (const std::vector<const char*>& more : {std::vector<const char*>{}, {"-a", "4", "--a-in-calibration"}}) {
        const Swept s = swept(joined({"-q", "gptaq", "-b", "2"}, more));
        CHECK_EQ(s.run.streams.size(), (size_t)2);
        std::vector<Stream> full;
        full.push_back(stream_of_windows(s.run.model.config, "full precision", s.run.streams[0].tokens, 200, false));
        push_through(s.run.model, full);
        CHECK(s.stream(1) == download(full[0].x.data));
        CHECK(s.stream(0) != s.stream(1));
    }
}

TEST(activations_may_be_quantized_in_calibration) {
    skip_when_emulated();
    // The calibration stream is then what the saved model makes of its tokens with such activations, keys and values.
    const auto check = [](const Swept& s, const std::string& saved) {
        Options o;
        o.model = saved;
        const Model m = model_open(o);
        std::vector<Stream> one;
        one.push_back(stream_of_windows(m.config, "quantized", s.run.streams[0].tokens, 200, false));
        push_through(m, one, s.run.options.quant);
        CHECK(s.stream(0) == download(one[0].x.data));
    };
    for (const char* method : {"gptq", "gptaq", "foem"}) {
        const Swept before = swept({"-q", method, "-a", "4"}), after = swept({"-q", method, "-a", "4", "--a-in-calibration"}, check);
        CHECK(before.tensors == swept({"-q", method}).tensors);
        CHECK(before.tensors != after.tensors && before.stream(0) != after.stream(0));
        const std::string cache = swept({"-q", method, "-a", "4", "--kv-bits", "2", "--a-in-calibration"}, check).tensors;
        CHECK(cache != after.tensors && cache != swept({"-q", method, "--kv-bits", "2", "--a-in-calibration"}, check).tensors);
        CHECK(swept({"-q", method, "-a", "4", "--a-asym", "--a-heads", "--a-in-calibration"}, check).tensors != after.tensors);
    }
    CHECK(swept({"-q", "gptq", "-a", "4", "--kv-bits", "2"}).tensors == swept({"-q", "gptq"}).tensors);
}

// ---------------------------------------------------------------------------------------------------------------------
// The paper's tables

// The command of a row.
static std::vector<std::string> command_of(const PaperRow& row) {
    const std::string method = row.cell("method");
    std::vector<std::string> args = {"qwen3", "-m", row.cell("model"), "-e", "all", "-q", method};
    auto add = [&](const char* flag, const std::string& value) { args.push_back(flag), args.push_back(value); };
    if (method == "fp16" || method == "billm") return args;  // BiLLM's bits are what comes out, its block is always 128
    add("-b", row.cell("wbits")), add("-a", row.cell("abits"));
    if (method != "smoothquant") add("-g", row.cell("group").empty() ? "-1" : row.cell("group"));
    return args;
}

static std::string size_of(const std::string& model) {  // "Qwen3-0.6B-Base": "0.6b"
    const size_t start = model.find('-') + 1;
    return model.substr(start, model.find('B', start) - start) + "b";
}

TEST(every_row_of_the_paper_is_one_command) {
    const char* tables = "data/paper/tables.csv";
    const std::vector<std::vector<std::string>> rows = csv_parse_file(tables);
    CHECK_EQ(rows.size(), (size_t)1 + 250);
    for (size_t r = 1; r < rows.size(); r++) {
        PaperRow row;
        for (size_t c = 0; c < rows[0].size(); c++) row.cells.push_back({rows[0][c], rows[r][c]});
        std::vector<const char*> argv;
        const std::vector<std::string> args = command_of(row);
        for (const std::string& arg : args) argv.push_back(arg.c_str());
        const Options o = options_parse((int)argv.size(), argv.data());
        const QuantOptions& q = o.quant;
        if (sizeof(floatX) == 2) CHECK(not_the_papers(o).empty());
        if (method_for(o).whole_groups) check_group_size(config_official(size_of(o.model)), "-g", q.group_size, "row");
        const PaperRow found = paper_row_find(tables, o.model, method_for(o).name, q.wbits, q.abits, q.group_size);
        for (const auto& cell : row.cells) {
            // Full precision is in two of the tables, where two of its cells are not the same.
            const bool twice = o.method == "fp16" && (cell.first == "table" || cell.first == "c4" || cell.first == "avg");
            if (!twice && found.cell(cell.first) != cell.second)
                fail("row %zu of %s: its command finds %s = \"%s\" instead of \"%s\"", r + 1, tables, cell.first.c_str(),
                     found.cell(cell.first).c_str(), cell.second.c_str());
        }
    }
}

// Hidden 256, ffn 512: with 96 columns a group, the last of a row has 64 or 32.
TEST(a_group_size_that_does_not_divide_is_said) {
    skip_when_emulated();
    for (const char* method : {"rtn", "gptq"}) {
        const Report r = run_tiny({"-q", method, "-b", "3", "-g", "96"}), whole = run_tiny({"-q", method, "-b", "3", "-g", "64"});
        const std::string note = "a row's last group is narrower: 64 of 256 columns of hidden_size (q, k, v, gate, up), 32 of 512 columns of";
        CHECK(r.narrower_groups.find(note) == 0 && whole.narrower_groups.empty());
        CHECK(report_text(r).find("\n" + note) != std::string::npos && report_json(r).find(note) != std::string::npos);
        CHECK(report_text(whole).find("narrower") == std::string::npos && report_json(whole).find("narrower") == std::string::npos);
        for (const ModuleResult& m : r.modules) CHECK(m.note.empty());
        CHECK_NEAR(r.tasks[0].value, whole.tasks[0].value, 0.05 * whole.tasks[0].value);
    }
    CHECK_EQ(narrower_groups(config_official("0.6b"), parse({"-q", "rtn", "-g", "1024"}).quant), "");
    CHECK_EQ(narrower_groups(config_official("0.6b"), parse({"-q", "rtn", "-g", "8192"}).quant), "");  // a row is its only group
}

// A checkpoint holds weights: what the row had besides is said, and written down.
TEST(what_a_checkpoint_does_not_hold_is_said) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string saved = tmp / "saved", folder = tmp / "w4a4kv2";
    CHECK(run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "rtn", "--save", saved.c_str()}).notes.empty());
    const Report r = run_quietly({"-m", "data/tiny", "--data", "data/tiny", "-q", "rtn", "-a", "4", "--kv-bits", "2", "--save", folder.c_str()});
    CHECK_EQ(r.notes.size(), (size_t)1);
    CHECK(r.notes[0].find("the checkpoint holds rtn's weights alone: it has no place for the grids of what flows") == 0);
    const Json settings = json_parse_file(folder + "/quantization.json");
    CHECK_EQ(json_int(json_object(settings, "kv", "quantization.json"), "v_bits", "kv"), 2);
    CHECK_EQ(json_int(json_object(settings, "options", "quantization.json"), "activation_bits", "options"), 4);
}

// More tokens in a row than the model was made for are computed, and said.
TEST(positions_beyond_the_models_are_said) {
    skip_when_emulated();
    const TempFolder tmp;
    const std::string model = tmp / "model", key = "\"max_position_embeddings\": ";
    std::filesystem::copy("data/tiny", model, std::filesystem::copy_options::recursive);
    std::string config = read_bytes("data/tiny/config.json");
    config.replace(config.find(key) + key.size(), 4, "2047");
    write_bytes(model + "/config.json", config);
    const std::vector<const char*> rest = {"--data", "data/tiny", "-e", "wikitext2", "--limit", "1", "-m"};
    CHECK(run_quietly(joined(rest, {"data/tiny"})).notes.empty());
    const Report r = run_quietly(joined(rest, {model.c_str()}));
    CHECK_EQ(r.notes.size(), (size_t)1);
    CHECK(r.notes[0].find("wikitext2 has up to 2048 tokens in a row, more than the model's 2047 positions") == 0);
}

TEST(the_sweep_counts_calibration_sequences) {
    skip_when_emulated();
    const Swept s = swept({"-q", "gptq"});
    CHECK_EQ(s.run.quantizer.n_sequences, (size_t)3);
    CHECK_EQ(s.run.quantizer.sample_length, 200);
}

TEST(impossible_combinations_say_why) {
    const struct {
        std::vector<const char*> args;
        const char* why;
    } cases[] = {
        {{"-q", "smoothquant", "-b", "1"}, "SmoothQuant's symmetric grid needs at least 2 bits"},
        {{"-q", "smoothquant", "-g", "128"},
         "-g has no meaning with -q smoothquant, SmoothQuant, Xiao et al. 2022: one grid a row"},
        {{"-q", "billm", "-b", "4"}, "-b has no meaning with -q billm, BiLLM, Huang et al. 2024: about one bit"},
        {{"-q", "billm", "-g", "64"}, "blocks of 128 (quant/billm.cuh). HINT: it belongs to rtn gptq gptaq foem awq"},
        {{"-q", "fp16", "-b", "4"}, "-b has no meaning with -q fp16"},
        {{"-q", "fp16", "-a", "8"}, "-a has no meaning with -q fp16"},
        {{"-q", "gptq", "-a", "3"}, "-a 3: expected 4 or 8 bits, or 16 for none"},
        {{"-q", "rtn", "-b", "16"}, "-b 16: expected 1 to 8 bits"},
        {{"-q", "awq", "-b", "0"}, "-b 0: expected 1 to 8 bits"},
        {{"-q", "awq", "-g", "0"}, "-g 0: expected a positive group size, or -1 for a whole row"},
        {{"-q", "rtn", "-n", "8"}, "-n has no meaning with -q rtn"},
        {{"-q", "gptq", "--alpha", "0.5"}, "--alpha has no meaning with -q gptq"},
        {{"-q", "gptaq", "--beta", "0.1"}, "--beta has no meaning with -q gptaq"},
        {{"-q", "foem", "--beta", "2"}, "--beta 2: expected 0 to 1"},
        {{"-q", "gptaq", "--no-true-sequential"}, "--no-true-sequential has no meaning with -q gptaq"},
        {{"-q", "gptaq", "--a-in-calibration"}, "--a-in-calibration: expected fewer than 16 bits"},
        {{"-q", "smoothquant", "--no-smooth", "-n", "8"}, "-n has no meaning with --no-smooth, which calibrates nothing"},
    };
    for (const auto& c : cases) CHECK_ERROR(parse(c.args), c.why);
    // What changes the weights is said, with grids of keys and values alone as well.
    const Options cache = parse({"-q", "gptq", "--kv-bits", "4", "--a-in-calibration"});
    const Settings said = method_settings(cache, method_for(cache));
    CHECK(std::count(said.begin(), said.end(), std::pair<std::string, std::string>("a_in_calibration", "true")) == 1);
    const QuantOptions odd = parse({"-q", "awq", "-g", "96"}).quant;
    CHECK_ERROR(check_group_size(config_official("0.6b"), "-g", odd.group_size, "row"), "-g 96: expected a divisor of the model's hidden_size");
    CHECK_ERROR(check_group_size(config_official("0.6b"), "-g", odd.group_size, "row"), "HINT: -g 16, 32, 64, 128, 256, 512, 1024, or -1 for a whole row");
}
