// bench_attention.cu: how fast attention is, beside what the multipliers could do.
// A line: what, achieved, limit, their ratio. The work counted is the causal one, 4 D operations for each query head, query and key
// that it sees. The limit is measured: on the CPU multiply-adds (bf16 dot products, where the build has them) on registers alone;
// on the GPU a large cuBLAS product.
#include "../cuda/attention.cuh"
#include <chrono>
#include <functional>
#include <random>

// Seconds of one call, the best of several.
static double seconds(const std::function<void()>& call) {
    double best = INFINITY, total = 0;
    call();
    device_wait();
    for (int i = 0; i < 3 || (total < 0.5 && i < 200); i++) {
        const auto start = std::chrono::steady_clock::now();
        call();
        device_wait();
        const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::min(best, s), total += s;
    }
    return best;
}

static Array<floatX> random_values(size_t n) {
    std::vector<floatX> values(n);
    std::mt19937 random(1);
    for (floatX& x : values) x = to_floatX((float)(int)random() / 2147483648.0f);
    Array<floatX> array(n, "values");
    copy(array.data, values.data(), n);
    return array;
}

#ifdef __CUDACC__
static double limit() {
    const int n = 8192;
    Array<floatX> a = random_values((size_t)n * n), b = random_values((size_t)n * n), c((size_t)n * n, "product");
    return 2.0 * n * n * n / seconds([&] { gemm(c.data, a.data, b.data, n, n, n); });
}
#else
// 12 independent sums hide a multiply-add's latency, and fit 16 registers.
static double limit() {
    const int rounds = 5000000, n_sums = 12, threads = omp_get_max_threads();
    std::vector<float> kept(threads);
    const double s = seconds([&] {
#pragma omp parallel for
        for (int i = 0; i < threads; i++) {
            Vector<float> sum[n_sums] = {};
            Vector<FloatXWord> b = Vector<FloatXWord>{} + (FloatXWord)1;
            for (int n = 0; n < rounds; n++) {
#pragma GCC unroll 12
                for (int j = 0; j < n_sums; j++) {
                    asm volatile("" : "+v"(b));  // or the product would be computed once
                    sum[j] = multiply_add(sum[j], (FloatXWord)1, b);
                }
            }
            for (int j = 0; j < n_sums; j++) kept[i] += sum[j][0];
        }
    });
    return 2.0 * threads * rounds * n_sums * LANES<float> * Words<FloatXWord>::K / s;
}
#endif

static void bench(const char* what, const std::vector<std::pair<int, int>>& len_and_parent, int H, int KV, int D, double limit) {
    std::vector<Segment> segments;
    std::vector<size_t> above;  // tokens before each segment, by its ancestors
    int T = 0;
    double pairs = 0;
    for (auto [len, parent] : len_and_parent) {
        above.push_back(parent < 0 ? 0 : above[parent] + segments[parent].len);
        segments.push_back({T, len, parent, (int)above.back()});
        pairs += (double)len * above.back() + (double)len * (len + 1) / 2;
        T += len;
    }
    const AttentionPlan plan = attention_plan(segments, T, H / KV);
    Array<floatX> qkv = random_values((size_t)T * (H + 2 * KV) * D), out((size_t)T * H * D, "out");
    const double s = seconds([&] { attention(out.data, qkv.data, plan, T, H, KV, D); });
    const double rate = 4 * pairs * D * H / s;
    printf("%-44s %8.3f ms %10.1f GFLOP/s   limit %10.1f GFLOP/s   %5.1f %%\n", what, s * 1e3, rate / 1e9, limit / 1e9,
           100 * rate / limit);
    fflush(stdout);
}

int main() {
    const double top = limit();
    printf("%s, %s\n", device_name().c_str(), FLOATX_NAME);
    typedef std::vector<std::pair<int, int>> Trie;
    bench("1 window of 2048, H 16, KV 8, D 128 (0.6B)", Trie(1, {2048, -1}), 16, 8, 128, top);
    bench("4 windows of 2048, H 16, KV 8, D 128", Trie(4, {2048, -1}), 16, 8, 128, top);
    bench("1 window of 2048, H 32, KV 8, D 128 (8B)", Trie(1, {2048, -1}), 32, 8, 128, top);
    bench("4 windows of 2048, H 32, KV 8, D 128", Trie(4, {2048, -1}), 32, 8, 128, top);
    bench("1 window of 2048, H 16, KV 8, D 64", Trie(1, {2048, -1}), 16, 8, 64, top);
    Trie mmlu = {{700, -1}}, hellaswag, ones = {{700, -1}};
    for (int i = 0; i < 300; i++) mmlu.push_back({1 + i * 7 % 60, 0});
    for (int i = 0; i < 40; i++) {
        hellaswag.push_back({30 + i * 13 % 50, -1});
        for (int ending = 0; ending < 4; ending++) hellaswag.push_back({5 + (i + ending * 7) % 25, i * 5});
    }
    for (int i = 0; i < 4000; i++) ones.push_back({1, 0});
    bench("MMLU: 700 tokens, 300 children of 1 to 60", mmlu, 16, 8, 128, top);
    bench("HellaSwag: 40 contexts of 4 endings", hellaswag, 16, 8, 128, top);
    bench("700 tokens, 4000 children of 1", ones, 16, 8, 128, top);
}
