// The forward pass against Hugging Face transformers: logits of small random models, whose weights are a function of their names
// (scripts/golden/golden_common.py), and of small checkpoints in every stored form. Made by scripts/golden/make_golden.py.
#include "golden.h"
#include "temp.h"
#include "test.h"

struct Golden {
    std::vector<int> tokens;
    std::vector<int> rows;
    std::vector<float> logits;  // [rows, V]
};

static std::vector<int> golden_ints(const Checkpoint& ck, const std::string& name) {
    const TensorView* t = checkpoint_find(ck, name);
    if (!t || t->dtype != "I32") fail("golden tensor %s is missing or not I32", name.c_str());
    std::vector<int> values(tensor_size(*t));
    memcpy(values.data(), t->data, t->n_bytes);
    return values;
}

static std::vector<float> golden_floats(const Checkpoint& ck, const std::string& name) {
    const TensorView* t = checkpoint_find(ck, name);
    if (!t) fail("golden tensor %s is missing", name.c_str());
    std::vector<float> values(tensor_size(*t));
    tensor_to_f32(*t, 0, values.size(), values.data());
    return values;
}

// The program's logits after the given rows of `tokens`, cut into one segment.
static std::vector<float> our_logits(const Model& m, const std::vector<int>& tokens, const std::vector<int>& rows) {
    const Config& c = m.config;
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", tokens, (int)tokens.size(), false));
    push_through(m, streams);
    Head head = head_load(m);
    head_logits(c, head, streams[0].x.data.data, rows);
    std::vector<float> logits(rows.size() * c.V);
    copy(logits.data(), head.logits.data, logits.size());
    return logits;
}

// Largest difference, relative to the largest logit.
static double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, largest = 0;
    for (size_t i = 0; i < a.size(); i++) {
        if (!std::isfinite(a[i])) return INFINITY;
        difference = std::max(difference, std::fabs((double)a[i] - b[i]));
        largest = std::max(largest, std::fabs((double)b[i]));
    }
    return difference / largest;
}

// bf16 has 8 bits: each of a handful of layers rounds its activations a dozen times.
static const double TOLERANCE = sizeof(floatX) == 4 ? 2e-5 : 5e-2;

static void check_random_model(const char* name) {
    const std::string dir = std::string("test/golden/") + name;
    Checkpoint reference = safetensors_open(dir + "/reference.safetensors");
    Model m;
    m.random = true;
    m.config = config_load(dir + "/config.json");
    m.seed = (uint64_t)golden_ints(reference, "seed")[0];
    const std::vector<int> all = golden_ints(reference, "tokens");
    for (int T : {1, 7, 1025, 2048}) {
        const std::string suffix = std::to_string(T);
        const std::vector<int> rows = golden_ints(reference, "rows_" + suffix);
        const std::vector<float> expected = golden_floats(reference, "logits_" + suffix);
        const std::vector<float> logits = our_logits(m, std::vector<int>(all.begin(), all.begin() + T), rows);
        CHECK_EQ(logits.size(), expected.size());
        const double difference = relative_difference(logits, expected);
        if (!(difference <= TOLERANCE)) fail("%s, %d tokens: logits differ by %g of the largest", name, T, difference);
    }
}

TEST(logits_qwen3_tied) { check_random_model("qwen3_tied"); }
TEST(logits_qwen3_untied) { check_random_model("qwen3_untied"); }
TEST(logits_qwen2_bias) { check_random_model("qwen2_bias"); }
TEST(logits_llama) { check_random_model("llama"); }
TEST(logits_llama3_scaling) { check_random_model("llama3_scaling"); }
TEST(logits_qwen3_06b_two_layers) {
    skip_when_emulated();
    check_random_model("qwen3_06b_2layers");
}

// The same of the rotated model, whose stream keeps what bf16 rounds off, in the place where it is told to be.
static std::vector<float> rotated_logits(const Model& m, const std::vector<int>& tokens, const std::vector<int>& rows, bool rest,
                                         Place place) {
    const Config& c = m.config;
    Rotation r = rotation_make({c.C, c.F, c.H, c.KV, c.D}, 3);
    r.rest = rest;
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", tokens, (int)tokens.size(), false));
    Stream& s = streams[0];
    s.rest = rest, s.x.width = residual_width(c, streams);
    s.x.data = Array<floatX>(tokens.size() * s.x.width, "activations", place);
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, streams);
    stream_rotate(s, r, false, scratch);
    Layer layer = layer_alloc(c);
    for (int l = 0; l < c.L; l++) {
        layer_place(c, layer, l);
        for (const Param& p : layer_params(c, layer)) load_param(m, p);
        rotation_draw_r2(r, l), rotate_layer(layer, r), layer.rotation = &r;
        layer_forward(c, layer, s, scratch);
    }
    stream_rotate(s, r, true, scratch);
    Head head = head_load(m);
    head_logits(c, head, s.x.fetch(s.chunks[0], scratch.x.data), rows);
    std::vector<float> logits(rows.size() * c.V);
    copy(logits.data(), head.logits.data, logits.size());
    return logits;
}

TEST(logits_of_a_rotated_model_whose_stream_keeps_rests) {
    const std::string dir = "test/golden/qwen3_tied";
    const Checkpoint reference = safetensors_open(dir + "/reference.safetensors");
    Model m;
    m.random = true, m.config = config_load(dir + "/config.json"), m.seed = (uint64_t)golden_ints(reference, "seed")[0];
    const std::vector<int> all = golden_ints(reference, "tokens"), rows = golden_ints(reference, "rows_1025");
    const std::vector<int> tokens(all.begin(), all.begin() + 1025);
    const std::vector<float> expected = golden_floats(reference, "logits_1025");
    const std::vector<float> found = rotated_logits(m, tokens, rows, true, Place::Device);
    CHECK(relative_difference(found, expected) <= TOLERANCE);
    CHECK(found == rotated_logits(m, tokens, rows, true, Place::Host));
    CHECK((found == rotated_logits(m, tokens, rows, false, Place::Device)) == (sizeof(floatX) == 4));  // in float there is nothing left
}

// Forth and back, in several chunks: with its rests a stream is what it was, to the last bit of bf16.
TEST(a_stream_with_rests_comes_back) {
    skip_when_emulated();
    Model m;
    m.random = true, m.config = config_load("test/golden/qwen3_tied/config.json");
    const Config& c = m.config;
    const Rotation r = rotation_make({c.C, c.F, c.H, c.KV, c.D}, 3);
    std::vector<int> tokens;
    for (int i = 0; i < (2 * CHUNK_TOKENS / 512 + 1) * 512; i++) tokens.push_back((int)(random_bits(i) % c.V));
    for (Place place : {Place::Device, Place::Host}) {
        std::vector<Stream> streams;
        streams.push_back(stream_of_windows(c, "test", tokens, 512, false));
        Stream& s = streams[0];
        CHECK_EQ(s.chunks.size(), (size_t)3);
        s.rest = true, s.x.width = residual_width(c, streams);
        CHECK_EQ(s.x.width, 2 * c.C);
        s.x.data = Array<floatX>(tokens.size() * s.x.width, "activations", place);
        stream_embed(m, s);
        const std::vector<float> before = download(s.x.data);
        Scratch scratch = scratch_alloc(c, streams);
        stream_rotate(s, r, false, scratch);
        stream_rotate(s, r, true, scratch);
        size_t differ = 0;
        const std::vector<float> after = download(s.x.data);
        for (const Chunk& chunk : s.chunks)
            for (size_t i = 0; i < (size_t)chunk.T * c.C; i++) {
                const float was = before[chunk.start * c.C + i], is = after[chunk.start * s.x.width + i];
                differ += was != is;
                CHECK_NEAR(is, was, sizeof(floatX) == 4 ? 1e-6 : std::fabs(was) / 100 + 1e-4);
            }
        CHECK(sizeof(floatX) == 4 || differ < tokens.size() * c.C / 100);
    }
}

static void check_checkpoint(const char* name) {
    const std::string dir = std::string("test/golden/checkpoints/") + name;
    Checkpoint reference = safetensors_open(dir + "/reference.safetensors");
    Options o;
    o.model = dir;
    Model m = model_open(o);
    const std::vector<int> tokens = golden_ints(reference, "tokens");
    const int T = (int)tokens.size();
    const std::vector<int> rows = golden_ints(reference, format("rows_%d", T));
    const std::vector<float> expected = golden_floats(reference, format("logits_%d", T));
    CHECK(relative_difference(our_logits(m, tokens, rows), expected) <= TOLERANCE);
}

TEST(checkpoint_bf16_tied_with_stored_head) { check_checkpoint("bf16_tied"); }
TEST(checkpoint_f16_sharded_untied) { check_checkpoint("f16_untied_sharded"); }
TEST(checkpoint_f32_qwen2) { check_checkpoint("f32"); }

// What the program's bf16 makes of such a checkpoint is not quite the stored model.
TEST(a_checkpoint_that_bf16_rounds_is_noted) {
    const bool rounds = sizeof(floatX) == 2;
    for (const auto& [name, text] : {std::pair<const char*, const char*>{"bf16_tied", ""},
                                     {"f16_untied_sharded", "25 tensors are rounded to bf16, model.embed_tokens.weight for one is stored as F16: "},
                                     {"f32", "26 tensors are rounded to bf16, model.embed_tokens.weight for one is stored as F32: "}}) {
        Options o;
        o.model = std::string("test/golden/checkpoints/") + name;
        std::vector<std::string> notes;
        require_tensors(model_open(o), notes);
        CHECK_EQ(notes.size(), (size_t)(rounds && *text));
        if (!notes.empty() && notes[0].find(text) != 0) fail("%s: found the note \"%s\"", name, notes[0].c_str());
    }
}

// log p of the targets against a float64 log-softmax of the logits, with rows that several targets share and batches that end
// in the middle of a chunk.
TEST(scores_are_the_log_softmax) {
    Model m;
    m.random = true;
    m.config = config_load("test/golden/qwen3_tied/config.json");
    const Config& c = m.config;
    std::vector<int> tokens;
    for (int i = 0; i < 100; i++) tokens.push_back((i * 37) % c.V);
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", tokens, 50, true));
    Stream& s = streams[0];
    CHECK_EQ(s.targets.size(), (size_t)98);
    s.targets.insert(s.targets.begin() + 1, {s.targets[0].row, 5});
    s.x.width = c.C;
    s.x.data = Array<floatX>(tokens.size() * c.C, "activations");
    stream_embed(m, s);
    Scratch scratch = scratch_alloc(c, streams);
    Head head = head_load(m);
    std::vector<int> rows;
    for (int t = 0; t < 100; t++) rows.push_back(t);
    head_logits(c, head, streams[0].x.data.data, rows);
    std::vector<float> logits(100 * (size_t)c.V);
    copy(logits.data(), head.logits.data, logits.size());
    head.batch = 7;
    stream_score(c, head, s, nullptr, scratch, nullptr);
    for (size_t k = 0; k < s.targets.size(); k++) {
        const float* row = &logits[s.targets[k].row * c.V];
        double sum = 0;
        for (int v = 0; v < c.V; v++) sum += std::exp((double)row[v]);
        CHECK_NEAR(s.logprobs[k], row[s.targets[k].token] - std::log(sum), 1e-5);
    }
}

// --logits: float32 [T, V] in the order of tokens, whatever the head takes at a time, which is here 7 rows.
TEST(written_logits_are_those_of_transformers) {
    const std::string dir = "test/golden/checkpoints/f32";
    const Checkpoint reference = safetensors_open(dir + "/reference.safetensors");
    Options o;
    o.model = dir;
    const Model m = model_open(o);
    const Config& c = m.config;
    const std::vector<int> tokens = golden_ints(reference, "tokens");
    std::vector<Stream> streams;
    streams.push_back(stream_of_windows(c, "test", tokens, (int)tokens.size(), false));
    Scratch scratch = push_through(m, streams);
    Head head = head_load(m);
    head.batch = 7;
    FILE* out = tmpfile();
    CHECK(out);
    stream_write_logits(c, head, streams[0], scratch, out);
    std::vector<float> written(tokens.size() * c.V + 1);
    rewind(out);
    const size_t n = fread(written.data(), sizeof(float), written.size(), out);
    fclose(out);
    CHECK_EQ(n, tokens.size() * c.V);
    const std::vector<int> rows = golden_ints(reference, "rows_40");
    const std::vector<float> expected = golden_floats(reference, "logits_40");
    CHECK_EQ(rows.size(), tokens.size());  // every one
    written.resize(n);
    for (size_t t = 0; t < rows.size(); t++) CHECK_EQ(rows[t], (int)t);
    CHECK(relative_difference(written, expected) <= TOLERANCE);
}

// What is only predicted, and never read by the model, is checked, too.
TEST(ids_beyond_the_vocabulary_are_refused) {
    Stream s;
    s.name = "boolq", s.tokens = {0, 2047};
    Target last;
    last.row = 1, last.token = 2047;
    s.targets = {last};
    stream_check(s, 2048);
    CHECK_ERROR(stream_check(s, 2047), "boolq: token 1 has id 2047, outside of the model's vocabulary of 2047. HINT: ");
    s.tokens[1] = 5;
    CHECK_ERROR(stream_check(s, 2047), "boolq: scored token 0 has id 2047");
    s.targets[0].token = -1;
    CHECK_ERROR(stream_check(s, 2048), "boolq: scored token 0 has id -1");
}

// Windows of a stream do not see each other, and chunks are cut between them.
TEST(windows_are_independent) {
    skip_when_emulated();
    Model m;
    m.random = true;
    m.config = config_load("test/golden/qwen3_tied/config.json");
    const int n = 2 * CHUNK_TOKENS / 512 + 1;
    std::vector<int> tokens;
    for (int i = 0; i < n * 512; i++) tokens.push_back((int)(random_bits(i) % m.config.V));
    Stream s = stream_of_windows(m.config, "test", tokens, 512, true);
    CHECK_EQ(s.segments.size(), (size_t)n);
    CHECK_EQ(s.chunks.size(), (size_t)3);
    CHECK_EQ(s.chunks[1].start, (size_t)CHUNK_TOKENS);
    CHECK_EQ(s.chunks[2].T, 512);
    const std::vector<int> last(tokens.end() - 512, tokens.end());
    std::vector<Stream> streams;
    streams.push_back(std::move(s));
    Stream& all = streams[0];
    all.x.width = m.config.C;
    all.x.data = Array<floatX>(tokens.size() * m.config.C, "activations");
    stream_embed(m, all);
    Scratch scratch = scratch_alloc(m.config, streams);
    Layer layer = layer_alloc(m.config);
    for (layer.index = 0; layer.index < m.config.L; layer.index++) {
        for (const Param& p : layer_params(m.config, layer)) load_param(m, p);
        layer_forward(m.config, layer, all, scratch);
    }
    Head head = head_load(m);
    head_logits(m.config, head, all.x.data.data + (tokens.size() - 512) * m.config.C, {0, 511});
    std::vector<float> together(2 * m.config.V);
    copy(together.data(), head.logits.data, together.size());
    CHECK(relative_difference(together, our_logits(m, last, {0, 511})) <= (sizeof(floatX) == 4 ? 1e-5 : 2e-2));
}

TEST(random_weights_are_as_defined) {
    // 24 bits of SplitMix64, computed by hand in Python: mix(fnv1a64("x") + 3) >> 40
    CHECK_EQ(random_key("", 0), 0xcbf29ce484222325ull);
    CHECK_EQ(random_bits(0), 0xe220a8397b1dcdafull);  // SplitMix64's first output for seed 0
}

TEST(config_refuses_by_name) {
    auto refuse = [](const std::string& fields, const char* message) {
        const std::string path = format("/tmp/qwen3_test_config_%d.json", getpid());
        write_file(path, "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": 1, "
                         "\"num_attention_heads\": 4, \"vocab_size\": 100" + fields + "}");
        CHECK_ERROR(config_load(path), message);
        remove(path.c_str());
    };
    refuse(", \"num_experts\": 128", "mixture of experts");
    refuse(", \"num_key_value_heads\": 4, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}", "rope_scaling");
    refuse(", \"num_key_value_heads\": 4, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}", "rope_scaling");
    refuse(", \"num_key_value_heads\": 4, \"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1e6}", "rope_parameters");
    refuse(", \"use_sliding_window\": true", "sliding window");
    refuse(", \"layer_types\": [\"sliding_attention\"]", "layer type");
    refuse(", \"hidden_act\": \"gelu\"", "activation");
    refuse(", \"attention_bias\": true", "attention_bias");
    // Keys of any class, which transformers 5 reads: with is_causal false or null its logits were others by 0.63 to 0.86 of the largest.
    refuse(", \"is_causal\": false", "is_causal");
    refuse(", \"is_causal\": null", "is_causal");
    refuse(", \"per_layer_config\": {\"0\": {\"rms_norm_eps\": 0.5}}", "per_layer_config");
    refuse(", \"transformers_weights\": \"other.safetensors\"", "transformers_weights");
    refuse(", \"is_causal\": true, \"per_layer_config\": {}, \"transformers_weights\": null, \"num_key_value_heads\": 3",
           "multiple of");
    refuse(", \"num_key_value_heads\": 4, \"head_dim\": 12", "head_dim");
    refuse(", \"num_key_value_heads\": 3", "multiple of num_key_value_heads");
    refuse(", \"num_key_value_heads\": 0", "num_key_value_heads between 1");
    CHECK_ERROR(config_load("/nowhere/config.json"), "HINT: scripts/download.sh");
}

static Config config_of(const std::string& fields, const char* type = "qwen3") {
    const TempFolder tmp;
    const std::string path = tmp / "config.json";
    write_file(path, std::string("{\"model_type\": \"") + type + "\", \"hidden_size\": 64, \"intermediate_size\": 128, "
                     "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 100" + fields + "}");
    return config_load(path);
}

// What transformers 5.24 makes of the same files (modeling_rope_utils.py; ../shared/cases d1 compared logits).
TEST(rotary_settings_wherever_they_stand) {
    auto theta = [](const std::string& fields) { return config_of(", \"num_key_value_heads\": 2" + fields).rope_theta; };
    CHECK_EQ(theta(""), 10000.0f);
    CHECK_EQ(theta(", \"rope_theta\": 5e5"), 5e5f);
    CHECK_EQ(theta(", \"rope_theta\": 5e5, \"rope_scaling\": null, \"rope_parameters\": {}"), 5e5f);
    CHECK_EQ(theta(", \"rope_theta\": 1e6, \"rope_parameters\": {\"rope_type\": \"default\"}"), 1e6f);
    CHECK_EQ(theta(", \"rope_scaling\": {\"rope_type\": \"default\", \"rope_theta\": 5e5}"), 5e5f);
    CHECK_EQ(theta(", \"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"default\", \"rope_theta\": 5e5}"), 5e5f);
    CHECK_EQ(theta(", \"rope_parameters\": {\"rope_theta\": 1e6}, \"rope_scaling\": {\"type\": \"default\", \"rope_theta\": 5e5}"), 5e5f);
    CHECK_EQ(theta(", \"rope_parameters\": {\"rope_theta\": 1e6}, \"rope_scaling\": {}"), 1e6f);
    CHECK_ERROR(theta(", \"rope_parameters\": {\"type\": \"linear\", \"factor\": 2.0}"), "\"linear\" is not supported");
    CHECK_ERROR(theta(", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}"), "rope_scaling: the rotary embedding \"dynamic\"");
    CHECK_ERROR(theta(", \"rope_scaling\": [1, 2]"), "expected rope_scaling to be an object or null");
    CHECK_ERROR(theta(", \"rope_parameters\": \"linear\""), "expected rope_parameters to be an object or null");
    CHECK_ERROR(theta(", \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\", \"rope_theta\": 5e5}}"), "by layer type");
    CHECK_ERROR(theta(", \"rope_parameters\": {\"rope_type\": 3}"), "rope_type");
    CHECK_ERROR(theta(", \"rope_theta\": -1"), "rope_theta above 0");
    CHECK_ERROR(theta(", \"rope_theta\": 0"), "rope_theta above 0");
    CHECK_ERROR(theta(", \"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}"), "partial_rotary_factor");
    CHECK_ERROR(theta(", \"rms_norm_eps\": -1e-6"), "rms_norm_eps from 0");
}

// Llama 3's formula in float64 and in its own words: wavelengths, three cases.
TEST(llama3_rotary_scaling) {
    const Config c = config_of(", \"rope_theta\": 5e5, \"head_dim\": 128, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
                               "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}",
                               "llama");
    int cases[3] = {0, 0, 0};
    for (int i = 0; i < 64; i++) {
        const double frequency = std::pow(5e5, -2.0 * i / 128), wavelength = 2 * M_PI / frequency;
        double expected = frequency;
        if (wavelength > 8192 / 1.0) {
            expected = frequency / 8, cases[2]++;
        } else if (wavelength >= 8192 / 4.0) {
            const double smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0);
            expected = (1 - smooth) * frequency / 8 + smooth * frequency, cases[1]++;
        } else {
            cases[0]++;
        }
        CHECK_NEAR(rope_inverse_frequency(c, i), expected, 2e-6 * expected);
    }
    CHECK(cases[0] > 0 && cases[1] > 0 && cases[2] > 0);
    CHECK_ERROR(config_of(", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}", "llama"), "low_freq_factor");
    CHECK_ERROR(config_of(", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 4.0, "
                          "\"high_freq_factor\": 4.0}", "llama"), "low_freq_factor < high_freq_factor");
    // Where the context's first length stands: at the top, else in the object, else it is max_position_embeddings.
    const std::string
        object = ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4",
        first = "\"original_max_position_embeddings\": ";
    CHECK_EQ(config_of(object + "}", "llama").rope.original_positions, 2048.0);
    CHECK_EQ(config_of(object + ", " + first + "8192}", "llama").rope.original_positions, 8192.0);
    CHECK_EQ(config_of(object + ", " + first + "8192}, " + first + "64", "llama").rope.original_positions, 64.0);
}

TEST(absent_keys_have_their_class_defaults) {
    CHECK_EQ(config_of(", \"num_key_value_heads\": null").D, 128);
    CHECK_EQ(config_of(", \"num_key_value_heads\": null").KV, 4);
    CHECK_ERROR(config_of(""), "multiple of num_key_value_heads, found 4 and 32");
    CHECK_EQ(config_of("", "llama").KV, 4);
    CHECK_EQ(config_of("", "llama").D, 16);
    CHECK_EQ(config_of(", \"num_key_value_heads\": 2, \"attention_bias\": true", "qwen2").D, 16);
    CHECK_ERROR(config_of(", \"num_local_experts\": 8"), "mixture of experts");
    CHECK_ERROR(config_of(", \"layer_types\": [\"full_attention\"]"), "as many layer_types");
    CHECK_ERROR(config_of(", \"layer_types\": [\"full_attention\", 3]"), "layer type other than");
}

// ../shared/cases/sparse_overflow.py: rows that wrap around in int.
TEST(sizes_are_bounded_where_they_are_read) {
    CHECK_ERROR(config_of(", \"num_attention_heads\": 16777216"), "num_attention_heads");
    CHECK_ERROR(config_of(", \"num_key_value_heads\": 4194304"), "num_key_value_heads");
    CHECK_ERROR(config_of(", \"num_key_value_heads\": 4, \"head_dim\": 16777216"), "head_dim");
    const TempFolder tmp;
    write_file(tmp / "config.json", "{\"model_type\": \"qwen3\", \"hidden_size\": 1, \"intermediate_size\": 1, \"num_hidden_layers\": 1, "
                                    "\"num_attention_heads\": 4194304, \"num_key_value_heads\": 4194304, \"head_dim\": 88, \"vocab_size\": 9}");
    CHECK_ERROR(config_load(tmp / "config.json"), "(num_attention_heads + 2 num_key_value_heads) head_dim up to");
    write_file(tmp / "config.json", "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"intermediate_size\": 1, \"num_hidden_layers\": 16777216, "
                                    "\"num_attention_heads\": 4, \"num_key_value_heads\": 4, \"vocab_size\": 9}");
    CHECK_ERROR(config_load(tmp / "config.json"), "num_hidden_layers between 1 and 4096");
}

// A checkpoint that says its head is tied, with a head of its own all the same.
TEST(a_stored_head_wins_over_tie_word_embeddings) {
    const std::string source = "test/golden/checkpoints/bf16_tied";
    Options o;
    o.model = source;
    std::vector<std::string> notes;
    CHECK(model_open(o, &notes).config.tied);  // its stored head equals the embedding
    CHECK(notes.empty());
    const TempFolder tmp;
    std::string bytes = read_bytes(source + "/model.safetensors");
    const Checkpoint stored = checkpoint_open(source);
    const TensorView& head = checkpoint_get(stored, "lm_head.weight", {120, 32});
    const std::string values((const char*)head.data, head.n_bytes);
    // The first occurrence is one of the two equal tensors; the head's is the one whose change shows.
    for (size_t at = bytes.find(values); at != std::string::npos; at = bytes.find(values, at + 1)) {
        std::string changed = bytes;
        changed[at + head.n_bytes - 1] ^= 1;
        write_bytes(tmp / "model.safetensors", changed);
        write_bytes(tmp / "config.json", read_bytes(source + "/config.json"));
        Options other;
        other.model = tmp.path;
        notes.clear();
        CHECK(!model_open(other, &notes).config.tied);
        CHECK_EQ(notes.size(), (size_t)1);
        CHECK(notes[0].find("lm_head.weight holds other values") != std::string::npos);
    }
}
