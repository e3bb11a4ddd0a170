// The small kernels, each against a plain float64 loop: one block and many, odd sizes, one value.
#include "golden.h"
#include "test.h"
#include <random>

static std::vector<float> random_values_of(size_t n, unsigned seed, float scale = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> x;
    for (size_t i = 0; i < n; i++) x.push_back(to_float(to_floatX(normal(random))));
    return x;
}

// One rounding to floatX, and float arithmetic before it.
static double tolerance(double expected) { return (sizeof(floatX) == 4 ? 2e-6 : 4.1e-3) * std::fabs(expected) + 1e-6; }

static std::vector<float> to_host(const Array<float>& device) {
    std::vector<float> host(device.n);
    copy(host.data(), device.data, device.n);
    return host;
}

KERNEL reductions_kernel(float* out /*[threads, 4]*/, const float* x /*[n]*/, int n) {
    float sum = 0, count = 0, most = -INFINITY, least = INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sum += x[i], count += 1;
        most = x[i] > most ? x[i] : most;
        least = x[i] < least ? x[i] : least;
    }
    sum = block_sum(sum), count = block_sum(count), most = block_max(most), least = block_min(least);
    out += threadIdx.x * 4;  // every thread has the result
    out[0] = sum, out[1] = most, out[2] = least, out[3] = count;
}

#ifdef __CUDACC__
static int threads_running(int asked) { return asked; }
#else
static int threads_running(int) { return 1; }
#endif

TEST(block_reductions) {
    for (int threads : {1, 5, 32, 33, 64, 100, 256, 1024})
        for (int n : {1, 31, 1000}) {
            const std::vector<float> x = random_values_of(n, 1);
            Array<float> out((size_t)threads * 4, "reductions"), x_d = to_device(x);
            launch(reductions_kernel, 1, threads, out.data, x_d.data, n);
            double sum = 0;
            for (float v : x) sum += v;
            const std::vector<float> found = to_host(out);
            for (int t = 0; t < threads_running(threads); t++) {
                CHECK_NEAR(found[t * 4], sum, 1e-4);
                CHECK_EQ(found[t * 4 + 1], *std::max_element(x.begin(), x.end()));
                CHECK_EQ(found[t * 4 + 2], *std::min_element(x.begin(), x.end()));
                CHECK_EQ(found[t * 4 + 3], (float)n);
            }
        }
}

TEST(exp_is_accurate_and_keeps_nan) {
    for (float x = -86; x < 88; x += 0.01f) CHECK_NEAR(exp_float(x) / std::exp((double)x), 1, 4e-7);
    CHECK_EQ(exp_float(0), 1.0f);
    CHECK_EQ(exp_float(-INFINITY), 0.0f);
    CHECK_EQ(exp_float(-200), 0.0f);
    CHECK_EQ(exp_float(INFINITY), INFINITY);
    CHECK(std::isnan(exp_float(NAN)));
}

TEST(bf16_rounds_to_nearest_even) {
    CHECK_EQ(to_float(to_bf16(1.0f)), 1.0f);
    CHECK_EQ(to_float(to_bf16(1.00390625f)), 1.0f);       // halfway between 1 and 1.0078125: to the even one
    CHECK_EQ(to_float(to_bf16(1.01171875f)), 1.015625f);  // halfway between 1.0078125 and 1.015625
    CHECK_EQ(to_float(to_bf16(3.4e38f)), INFINITY);
    CHECK(std::isnan(to_float(to_bf16(NAN))));
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const bf16 x = {(uint16_t)bits};
        if (std::isfinite(to_float(x))) CHECK_EQ(to_bf16(to_float(x)).bits, x.bits);
    }
}

TEST(rmsnorm) {
    for (int C : {1, 7, 64, 257, 1024})
        for (auto [T, threads] : {std::pair<int, int>{1, 64}, {5, 64}, {5, 256}}) {
            const std::vector<float> x = random_values_of((size_t)T * C, 2, 3), gain = random_values_of(C, 3);
            Array<floatX> x_d = upload(x), gain_d = upload(gain), out((size_t)3 * C, "out"), all((size_t)T * C, "all");
            const std::vector<int> rows = {T - 1, 0, T / 2};
            Array<int> rows_d = to_device(rows);
            launch(rmsnorm_kernel, 3, threads, out.data, x_d.data, (const int*)rows_d.data, gain_d.data, C, 1e-6f);
            launch(rmsnorm_kernel, T, threads, all.data, x_d.data, (const int*)nullptr, gain_d.data, C, 1e-6f);
            const std::vector<float> found = download(out), found_all = download(all);
            for (int r = 0; r < 3; r++) {
                double squares = 0;
                for (int i = 0; i < C; i++) squares += (double)x[rows[r] * C + i] * x[rows[r] * C + i];
                for (int i = 0; i < C; i++) {
                    const double expected = x[rows[r] * C + i] / std::sqrt(squares / C + 1e-6) * gain[i];
                    CHECK_NEAR(found[r * C + i], expected, tolerance(expected));
                    CHECK_EQ(found_all[rows[r] * C + i], found[r * C + i]);
                }
            }
        }
}

TEST(qk_norm_and_rotary) {
    for (int D : {8, 64, 128})
        for (bool normed : {true, false}) {
            const int T = 3, H = 4, KV = 2, half = D / 2, P = 2050, width = (H + 2 * KV) * D;
            const std::vector<float> x = random_values_of((size_t)T * width, 4), q_gain = random_values_of(D, 5),
                                     k_gain = random_values_of(D, 6);
            const std::vector<int> positions = {0, 1, 2049};
            std::vector<float> cosines((size_t)P * half), sines((size_t)P * half);
            for (int p = 0; p < P; p++)
                for (int i = 0; i < half; i++) {
                    const double angle = p / std::pow(1e6, 2.0 * i / D);
                    cosines[(size_t)p * half + i] = (float)std::cos(angle), sines[(size_t)p * half + i] = (float)std::sin(angle);
                }
            Array<floatX> qkv = upload(x), q_d = upload(q_gain), k_d = upload(k_gain);
            Array<int> positions_d = to_device(positions);
            Array<float> cosines_d = to_device(cosines), sines_d = to_device(sines);
            launch(qk_norm_rotary_kernel, T * (H + KV), 64, qkv.data, normed ? q_d.data : nullptr, normed ? k_d.data : nullptr,
                   positions_d.data, cosines_d.data, sines_d.data, H, KV, D, 1e-6f);
            const std::vector<float> found = download(qkv);
            for (int t = 0; t < T; t++)
                for (int h = 0; h < H + 2 * KV; h++) {
                    const float* in = &x[(size_t)t * width + h * D];
                    const float* out = &found[(size_t)t * width + h * D];
                    double squares = 0;
                    for (int i = 0; i < D; i++) squares += (double)in[i] * in[i];
                    auto value = [&](int i) {
                        return normed ? in[i] / std::sqrt(squares / D + 1e-6) * (h < H ? q_gain : k_gain)[i] : in[i];
                    };
                    for (int i = 0; i < D; i++) {
                        const double angle = positions[t] / std::pow(1e6, 2.0 * (i % half) / D);
                        const double turned = i < half ? value(i) * std::cos(angle) - value(i + half) * std::sin(angle)
                                                       : value(i) * std::cos(angle) + value(i - half) * std::sin(angle);
                        const double expected = h < H + KV ? turned : in[i];  // v stays as it is
                        CHECK_NEAR(out[i], expected, tolerance(expected) + 2e-6);
                    }
                }
        }
}

TEST(silu_add_and_bias) {
    for (int F : {1, 33, 300}) {
        const int T = 4;
        const std::vector<float> gate_up = random_values_of((size_t)T * 2 * F, 7, 4), y = random_values_of((size_t)T * F, 8);
        const std::vector<float> bias = random_values_of(F, 9);
        Array<floatX> gate_up_d = upload(gate_up), out((size_t)T * F, "out"), sum = upload(y), biased = upload(y),
                      bias_d = upload(bias);
        launch(silu_mul_kernel, T, 64, out.data, gate_up_d.data, F);
        launch(add_kernel, T, 64, sum.data, out.data, F);
        launch(add_bias_kernel, T, 64, biased.data, bias_d.data, F);
        const std::vector<float> found = download(out), found_sum = download(sum), found_biased = download(biased);
        for (int t = 0; t < T; t++)
            for (int i = 0; i < F; i++) {
                const double g = gate_up[(size_t)t * 2 * F + i], u = gate_up[(size_t)t * 2 * F + F + i],
                             at = g / (1 + std::exp(-g)) * u;
                CHECK_NEAR(found[t * F + i], at, tolerance(at));
                const double added = (double)y[t * F + i] + found[t * F + i], with_bias = (double)y[t * F + i] + bias[i];
                CHECK_NEAR(found_sum[t * F + i], added, tolerance(added));
                CHECK_NEAR(found_biased[t * F + i], with_bias, tolerance(with_bias));
            }
    }
}

// A stream with rests is a sum in 16 bits of mantissa, of which x is the rounded value.
TEST(a_stream_keeps_what_rounding_leaves) {
    const int T = 5, C = 67, sums = 200;
    const std::vector<float> first = random_values_of((size_t)T * C, 21, 64);
    Array<floatX> x = upload(first), rest((size_t)T * C, "rest"), plain = upload(first);
    fill_zero(rest.data, rest.n);
    std::vector<double> exact(first.begin(), first.end());
    for (int k = 0; k < sums; k++) {
        const std::vector<float> y = random_values_of((size_t)T * C, 22 + k, 0.5f);
        const Array<floatX> y_d = upload(y);
        launch(add_with_rest_kernel, T, 64, x.data, rest.data, y_d.data, C);
        launch(add_kernel, T, 64, plain.data, y_d.data, C);
        for (size_t i = 0; i < exact.size(); i++) exact[i] += y[i];
    }
    const std::vector<float> found = download(x), left = download(rest), without = download(plain);
    double error = 0, error_without = 0;
    for (size_t i = 0; i < exact.size(); i++) {
        const double sum = (double)found[i] + left[i];
        CHECK_NEAR(found[i], sum, std::fabs(sum) / 255);
        error += std::fabs(sum - exact[i]), error_without += std::fabs(without[i] - exact[i]);
    }
    CHECK(sizeof(floatX) == 4 || error < error_without / 50);
    // The norm is of the sum.
    const std::vector<float> gain = random_values_of(C, 23);
    Array<floatX> normed((size_t)T * C, "normed");
    launch(rmsnorm_with_rest_kernel, T, 64, normed.data, x.data, rest.data, upload(gain).data, C, 1e-6f);
    const std::vector<float> found_norm = download(normed);
    for (int t = 0; t < T; t++) {
        double squares = 0;
        for (int i = 0; i < C; i++) squares += std::pow((double)found[t * C + i] + left[t * C + i], 2);
        for (int i = 0; i < C; i++) {
            const double expected = ((double)found[t * C + i] + left[t * C + i]) / std::sqrt(squares / C + 1e-6) * gain[i];
            CHECK_NEAR(found_norm[t * C + i], expected, tolerance(expected));
        }
    }
}

TEST(logsumexp_picks_and_divergence) {
    for (int V : {1, 100, 5000}) {
        const int n = 3;
        std::vector<float> q = random_values_of((size_t)n * V, 10, 5), p = random_values_of((size_t)n * V, 11, 5);
        if (V > 1) q[V + V / 2] = 40, p[V + V / 2] = 50;  // row 1: both prefer the same token
        Array<float> q_d = to_device(q), p_d = to_device(p), q_norm(n, "norms"), p_norm(n, "norms"), kl(n, "kl"), same(n, "same"),
                     picked(4, "logits"), logprobs(4, "log-probabilities");
        const std::vector<int> rows = {0, 0, 2, 1}, tokens = {0, V - 1, V / 2, V / 3};
        Array<int> rows_d = to_device(rows), tokens_d = to_device(tokens);
        launch(logsumexp_kernel, n, 128, q_norm.data, q_d.data, V);
        launch(logsumexp_kernel, n, 128, p_norm.data, p_d.data, V);
        launch(pick_kernel, 1, 32, picked.data, logprobs.data, q_d.data, q_norm.data, rows_d.data, tokens_d.data, 4, V);
        launch(divergence_kernel, n, 128, kl.data, same.data, q_d.data, q_norm.data, p_d.data, p_norm.data, V);
        auto norm = [&](const std::vector<float>& x, int r) {
            double sum = 0;
            for (int i = 0; i < V; i++) sum += std::exp((double)x[(size_t)r * V + i]);
            return std::log(sum);
        };
        const std::vector<float> found = to_host(q_norm), found_picked = to_host(picked), found_logprobs = to_host(logprobs),
                                 found_kl = to_host(kl), found_same = to_host(same);
        for (int r = 0; r < n; r++) {
            CHECK_NEAR(found[r], norm(q, r), 1e-5 * (1 + std::fabs(norm(q, r))));
            double divergence = 0;
            for (int i = 0; i < V; i++) {
                const double log_p = p[(size_t)r * V + i] - norm(p, r), log_q = q[(size_t)r * V + i] - norm(q, r);
                divergence += std::exp(log_p) * (log_p - log_q);
            }
            CHECK_NEAR(found_kl[r], divergence, 1e-4 * (1 + divergence));
            auto first = [&](const std::vector<float>& x) {
                return std::max_element(x.begin() + (size_t)r * V, x.begin() + (size_t)(r + 1) * V) - x.begin();
            };
            CHECK_EQ(found_same[r], first(p) == first(q) ? 1.0f : 0.0f);
        }
        if (V > 1) CHECK_EQ(found_same[1], 1.0f);
        for (int k = 0; k < 4; k++) {
            const float logit = q[(size_t)rows[k] * V + tokens[k]];
            CHECK_EQ(found_picked[k], logit);
            CHECK_NEAR(found_logprobs[k], logit - norm(q, rows[k]), 2e-5);
        }
        launch(round_logits_kernel, n, 128, q_d.data, V);
        const std::vector<float> rounded = to_host(q_d);
        for (size_t i = 0; i < rounded.size(); i++) {
            // The nearest number of 8 significant bits, as frexp finds it.
            int exponent;
            const double mantissa = std::frexp((double)q[i], &exponent);
            CHECK_EQ(rounded[i], (float)std::ldexp(std::nearbyint(mantissa * 256) / 256, exponent));
        }
    }
}

TEST(mirrored_halves_and_nonfinite_counts) {
    for (int I : {1, 31, 32, 33, 100}) {
        std::vector<float> H((size_t)I * I);
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) H[(size_t)i * I + j] = j >= i ? (float)(i * 1000 + j) : -1;
        Array<float> H_d = to_device(H);
        mirror_upper(H_d.data, I);
        const std::vector<float> found = to_host(H_d);
        for (int i = 0; i < I; i++)
            for (int j = 0; j < I; j++) CHECK_EQ(found[(size_t)i * I + j], (float)(std::min(i, j) * 1000 + std::max(i, j)));
    }
    std::vector<float> x = random_values_of(300 * 7, 12);
    CHECK_EQ(count_nonfinite(upload(x).data, 300, 7), (size_t)0);
    x[0] = NAN, x[2099] = INFINITY, x[1000] = -INFINITY;
    CHECK_EQ(count_nonfinite(upload(x).data, 300, 7), (size_t)3);
}

TEST(every_block_of_a_large_grid_runs) {
    // More blocks than one dimension of a grid of threads could ever have: every one must run.
    const unsigned n = 100000;
    Array<int> count(n, "counts");
    std::vector<float> x(n, 1);
    x[n - 1] = NAN;
    CHECK_EQ(count_nonfinite(upload(x).data, n, 1), (size_t)1);
    launch(count_nonfinite_kernel, 0, 128, count.data, (const floatX*)nullptr, 1);  // an empty grid is no work
}
