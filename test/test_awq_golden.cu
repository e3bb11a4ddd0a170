// quant/awq.cuh against a PyTorch reference on a whole Qwen3-like layer: scripts/golden/golden_awq.py ran it on activations and
// weights that it defines and that are generated here again.
#include "awq_layer.h"
#include "test.h"

struct GoldenLayer {
    Config config;
    std::vector<float> x;
    Layer layer;
};

// Generated anew for each setting; scripts/golden/golden_awq.py says how.
static GoldenLayer golden_layer(const Checkpoint& ck) {
    GoldenLayer p;
    p.config = {"qwen3", 256, 512, 1, 4, 2, 64, 16, 1e-6f, 1e6f, true, true, false, 4096};
    const Config& c = p.config;
    double x_sum = 0, W_sum = 0, gain_sum = 0;
    for (int t = 0; t < 2048; t++)
        for (int j = 0; j < c.C; j++) {
            auto y = [&](int k) { return k < 0 ? 0.0f : twelve_bits("awq.x", (uint64_t)t * c.C + k); };
            const float mixed = y(j) + 0.75f * y(j - 1) + 0.5f * y(j - 2) + 0.5f * twelve_bits("awq.z", t);
            p.x.push_back(to_float(to_bf16((float)((37 * j) % 64 + 16) / 64 * mixed)));
            x_sum += p.x.back();
        }
    p.layer = layer_alloc(c);
    const std::string prefix = format("model.layers.%d.", p.layer.index);
    for (const Param& param : layer_params(c, p.layer)) {
        const std::string name = "awq." + param.name.substr(prefix.size());
        std::vector<float> values;
        for (size_t i = 0; i < param.size(); i++) {
            const float w = twelve_bits(name.c_str(), i);
            if (param.shape.size() == 1) {
                const int large = name == "awq.input_layernorm.weight" ? 5 : name == "awq.post_attention_layernorm.weight" ? 9 : -1;
                values.push_back(to_float(to_bf16(((int)i % 64 == large ? 8.0f : 1.0f) * (1 + 0.5f * w))));
                gain_sum += values.back();
            } else {
                const float f = name == "awq.mlp.up_proj.weight" && i / param.shape[1] % 64 == 3 ? 0.5f : 0.125f;
                values.push_back(to_float(to_bf16(f * (w * std::fabs(w) * (w < 0 ? 0.75f : 1.0f)))));
                W_sum += values.back();
            }
        }
        copy(param.data, upload(values).data, values.size());
    }
    CHECK_NEAR(x_sum, golden<double>(ck, "check.x_sum")[0], 1e-6);
    CHECK_NEAR(W_sum, golden<double>(ck, "check.W_sum")[0], 1e-6);
    CHECK_NEAR(gain_sum, golden<double>(ck, "check.gain_sum")[0], 1e-6);
    return p;
}

TEST(awq_gives_what_the_pytorch_reference_gives) {
    skip_when_emulated();
    Checkpoint ck = safetensors_open("test/golden/awq.safetensors");
    // The reference's activations are float32: in bf16 their rounding is part of what is measured.
    const bool exact = sizeof(floatX) == 4;
    const std::pair<const char*, QuantOptions> settings[] = {
        {"w4_g128", awq_options(4, 128)}, {"w3_g64", awq_options(3, 64)}, {"w3_channel", awq_options(3, -1)}, {"w2_g128", awq_options(2, 128)}};
    for (const auto& setting : settings) {
        const std::string name = setting.first;
        GoldenLayer p = golden_layer(ck);
        const std::vector<float> full = AwqBench(p.config, p.x, 512).forward(p.layer);
        const std::vector<ModuleReport> reports = AwqBench(p.config, p.x, 512).quantize(p.layer, setting.second);
        const std::vector<float> quantized = AwqBench(p.config, p.x, 512).forward(p.layer);

        const std::vector<double> losses = golden<double>(ck, name + ".losses"), errors = golden<double>(ck, name + ".errors");
        const std::vector<int> ratio = golden<int>(ck, name + ".ratio");
        for (int i = 0; i < 3; i++) {
            const AwqSearch& search = awq_solved[i == 0 ? 0 : i + 1].search;
            for (int k = 0; k < AWQ_RATIOS; k++) {
                const double expected = losses[i * AWQ_RATIOS + k];
                CHECK_NEAR(search.losses[k], expected, (exact ? 2e-3 : 3e-2) * expected);
            }
            const double best = losses[i * AWQ_RATIOS + ratio[i]], ours = losses[i * AWQ_RATIOS + search.best];
            if (search.best != ratio[i] && ours > best * (1 + (exact ? 1e-4 : 2e-2)))
                fail("%s: search %d found ratio %d/20, not %d/20", name.c_str(), i, search.best, ratio[i]);
        }

        // Limits are compared where the reference has a clear best, and where the scales before them are the same. In bf16 those of
        // v, gate and up are not quite: they make good what the norm's gain loses, and that moves some codes.
        const std::vector<uint8_t> clip = golden<uint8_t>(ck, name + ".clip");
        const std::vector<float> margin = golden<float>(ck, name + ".margin");
        size_t at = 0, compared = 0, wrong = 0;
        for (int g = 0; g < 4; g++)
            for (const std::vector<int>& found : awq_solved[g].clip)
                for (int i : found) {
                    const bool same_scales = g == 1 || awq_solved[g].search.best == ratio[g == 0 ? 0 : g - 1];
                    const float clear = exact ? 1e-4f : g % 2 ? 2e-2f : 0.4f;
                    if (same_scales && margin[at] > clear) compared++, wrong += i != clip[at];
                    at++;
                }
        CHECK_EQ(at, clip.size());
        // A clamped group's range is often symmetric, its zero halfway between two codes, and rounding noise decides.
        if (wrong * 50 > compared || compared < clip.size() * (exact ? 95 : 30) / 100)
            fail("%s: %zu of %zu limits differ, of %zu", name.c_str(), wrong, compared, clip.size());

        CHECK_EQ(reports.size(), (size_t)7);
        for (int i = 0; i < 7; i++) CHECK_NEAR(reports[i].error, errors[i], (exact ? 1e-2 : 3e-2) * errors[i]);
        double difference = 0, size = 0;
        for (size_t i = 0; i < full.size(); i++) {
            difference += std::pow((double)quantized[i] - full[i], 2);
            size += std::pow((double)full[i] - p.x[i], 2);
        }
        const double error = golden<double>(ck, name + ".error")[0];
        CHECK_NEAR(std::sqrt(difference / size), error, (exact ? 1e-2 : 5e-2) * error);
    }
}
