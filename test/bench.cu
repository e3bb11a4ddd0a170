// bench.cu: how close the program is to what the machine can do, in one table; `make bench`, `make bench JSON=FILE`.
//     build/.../bench [--json FILE]
// The CPU's rows are for random:0.6b, whose products are: q, k and v (one product, 4096 x 1024), o (1024 x 2048), gate and up
// (6144 x 1024), down (1024 x 3072). The GPU's rows are the same for random:8b. The program's own source is included: what is
// measured is what ships. Work is counted as what has to be done: half of a square attention, half of X^T X.
// $QWEN3 is the program, for the row of the whole bundled model.
#include "../qwen3.cu"
#include "../cuda/openmp.h"
#include "bench.h"
#ifndef __CUDACC__
#include <dlfcn.h>
#endif

#ifdef __CUDACC__
static constexpr bool GPU = true;
static const char *SIZE = "8b", *LIMIT = "cuBLAS, 8192^3";
#else
static constexpr bool GPU = false;
static const char *SIZE = "0.6b", *LIMIT = "registers alone";
#endif
static constexpr int WINDOW = 2048, WINDOWS = 8;
static Goal on_gpu(Goal goal) { return GPU ? goal : no_goal(); }
static Goal on_cpu(Goal goal) { return GPU ? no_goal() : goal; }
#ifdef __CUDACC__
static Goal with_amx(Goal, Goal otherwise) { return otherwise; }
#else
static Goal with_amx(Goal goal, Goal otherwise) { return bf16_product() == Bf16Product::Tiles ? goal : otherwise; }
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Products

struct Shape {
    const char* name;
    int N, K;
};

static std::vector<Shape> linear_shapes(const Config& c) {
    const Layer layer = layer_alloc(c);
    std::vector<Shape> shapes;
    for (const Group& g : layer.groups) shapes.push_back({g.name, g.O, g.I});
    return shapes;
}

static std::string product_text(const char* type, const Shape& s, int M) {
    return format("%s product, %s, %d x %d x %d", type, s.name, M, s.N, s.K);
}

#ifndef __CUDACC__
// OpenBLAS's C = alpha A B + beta C in float, if it is installed.
struct OpenBlas {
    typedef void (*Sgemm)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
    Sgemm sgemm = nullptr;
    std::string kernel;
};
static OpenBlas openblas_load() {
    OpenBlas blas;
    void* library = dlopen("libopenblas.so.0", RTLD_NOW);
    if (!library) return blas;
    const auto set_threads = (void (*)(int))dlsym(library, "openblas_set_num_threads");
    const auto core = (char* (*)())dlsym(library, "openblas_get_corename");
    if (set_threads) set_threads(omp_get_max_threads());
    blas.sgemm = (OpenBlas::Sgemm)dlsym(library, "cblas_sgemm");
    blas.kernel = format("OpenBLAS sgemm%s%s", core ? ", kernels for " : "", core ? core() : "");
    return blas;
}
#endif

static void bench_float_products(Table& table, const std::vector<Shape>& shapes) {
    const Probe probe = peak_probe<float>();
#ifndef __CUDACC__
    const OpenBlas blas = openblas_load();
    Table::Row worst;
#endif
    for (int M : {WINDOW, 2 * WINDOW})
        for (const Shape& s : shapes) {
            const int N = s.N, K = s.K;
            const double work = 2.0 * M * N * K;
            Array<float> A = random_array<float>((size_t)M * K), B = random_array<float>((size_t)K * N), C((size_t)M * N, "product");
            std::vector<Work> runs = {probe.run, [&] { gemm_float(C.data, N, A.data, K, B.data, N, M, N, K, 1, 0); }};
#ifndef __CUDACC__
            const int by_rows = 101, plain = 111;  // CblasRowMajor, CblasNoTrans
            if (blas.sgemm)
                runs.push_back([&] { blas.sgemm(by_rows, plain, plain, M, N, K, 1, A.data, K, B.data, N, 0, C.data, N); });
#endif
            const std::vector<double> seconds = race(runs, 3);
            const std::string what = product_text("float32", s, M);
            table.add_rate(what, work, seconds[1], probe.work / seconds[0], LIMIT, on_cpu(at_least(0.75)));
#ifndef __CUDACC__
            if (!blas.sgemm) continue;
            const Table::Row row = {what, "GFLOP/s", 1e-9 * work / seconds[1], 1e-9 * work / seconds[2],
                                    blas.kernel + "; the worst of these 8", at_least(1)};
            if (worst.what.empty() || row.ratio() < worst.ratio()) worst = row;
#endif
        }
#ifndef __CUDACC__
    if (blas.sgemm) table.add(worst);
    else printf("(no OpenBLAS to compare with: libopenblas.so.0 was not found)\n");
#endif
}

#ifdef BF16_PAIRS
// The way that products of bf16 go is chosen by what the CPU is: was it the fastest of those that it has?
static void bench_choice(Table& table, const Shape& s) {
    const int M = WINDOW, N = s.N, K = s.K;
    Array<floatX> A = random_array<floatX>((size_t)M * K), B = random_array<floatX>((size_t)N * K);
    Array<floatX> C((size_t)M * N, "product");
    const Bf16Product chosen = bf16_product();
    const auto product = [&](Bf16Product way) {
        return [&, way] {
            bf16_product() = way;
            gemm(C.data, A.data, B.data, M, N, K);
            bf16_product() = chosen;
        };
    };
    std::vector<Work> runs = {product(chosen)};
    for (Bf16Product other : {Bf16Product::Widened, Bf16Product::Pairs})
        if (other != chosen) runs.push_back(product(other));
    const std::vector<double> seconds = race(runs, 1.5);
    const double work = 2.0 * M * N * K, others = *std::min_element(seconds.begin() + 1, seconds.end());
    const char* other_ways = chosen == Bf16Product::Pairs ? "in float" : chosen == Bf16Product::Widened ? "by vdpbf16ps" : "without tiles";
    table.add_rate(std::string("bf16 ") + bf16_product_text(), work, seconds[0], work / others, other_ways, at_least(1));
}
#endif

static void bench_linear_products(Table& table, const std::vector<Shape>& shapes) {
    const Probe probe = peak_probe<floatX>();
#ifndef __CUDACC__
    if (bf16_product() == Bf16Product::Tiles) {
        const Probe plain = peak_probe<float>();
        const std::vector<double> seconds = race({plain.run, probe.run}, 1.5);
        table.add_rate("AMX on registers alone", probe.work, seconds[1], plain.work / seconds[0], "float on registers", no_goal());
    }
#endif
    for (int M : {WINDOW, 2 * WINDOW})
        for (const Shape& s : shapes) {
            const int N = s.N, K = s.K;
            Array<floatX> A = random_array<floatX>((size_t)M * K), B = random_array<floatX>((size_t)N * K);
            Array<floatX> C((size_t)M * N, "product");
            const std::vector<double> seconds = race({probe.run, [&] { gemm(C.data, A.data, B.data, M, N, K); }}, 1.5);
            table.add_rate(product_text(FLOATX_NAME, s, M), 2.0 * M * N * K, seconds[1], probe.work / seconds[0], LIMIT,
                           with_amx(at_least(0.5), on_cpu(at_least(0.6))));
        }
#ifdef BF16_PAIRS
    bench_choice(table, shapes[0]);
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// A layer, the head, and GPTQ, on windows of random tokens

struct Bench {
    Model model;
    std::vector<Stream> streams;
    Scratch scratch;
    Layer layer;
    double attention_work;  // a layer's and window's; a query sees half of the keys
    double linear_work;     // a layer's and token's

    const Chunk& chunk() const { return streams[0].chunks[0]; }
    double chunks() const { return (double)WINDOWS * WINDOW / chunk().T; }  // of all the windows
    void load_layer() {
        for (const Param& p : layer_params(model.config, layer)) load_param(model, p);
    }
    void stage(int i) {
        layer_stage(model.config, layer, i, streams[0].x.data.data, scratch.in.data, chunk(), scratch);
    }
    void product(int g) {
        const Group& group = layer.groups[g];
        gemm(scratch.out.data, scratch.in.data, group.W, chunk().T, group.O, group.I);
    }
};

// Windows of random tokens.
static Stream random_stream(const Config& c, int windows, bool with_targets) {
    std::vector<int> tokens((size_t)windows * WINDOW);
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] = (int)(random_bits(i) % c.V);
    return stream_of_windows(c, "benchmark", tokens, WINDOW, with_targets);
}

static Bench bench_model(const Config& config) {
    Bench b;
    b.model.name = "random", b.model.random = true, b.model.config = config;
    const Config& c = b.model.config;
    b.streams.push_back(random_stream(c, WINDOWS, false));
    Stream& s = b.streams[0];
    s.x.width = c.C;
    s.x.data = Array<floatX>(s.tokens.size() * c.C, "activations");
    stream_embed(b.model, s);
    b.scratch = scratch_alloc(c, b.streams);
    b.layer = layer_alloc(c);
    b.load_layer();
    b.attention_work = 2.0 * c.H * c.D * WINDOW * (WINDOW + 1.0), b.linear_work = 0;
    for (const Group& g : b.layer.groups) b.linear_work += 2.0 * g.O * g.I;
    return b;
}

// Seconds of a chunk's pass through one layer: as a whole, its four linear products, its attention.
struct LayerSeconds {
    double whole, products, attention, peak /*operations a second, measured beside them*/;
};

static LayerSeconds layer_seconds(Bench& b) {
    const Config& c = b.model.config;
    const Probe probe = peak_probe<floatX>();
    const Array<floatX> qkv = random_array<floatX>((size_t)b.chunk().T * qkv_rows(c));
    std::vector<Work> runs = {probe.run};
    runs.push_back([&] { attention(b.scratch.in.data, qkv.data, b.chunk().plan, b.chunk().T, c.H, c.KV, c.D); });
    for (int i = 0; i <= 4; i++) runs.push_back([&, i] { b.stage(i); });
    for (int g = 0; g < 4; g++) runs.push_back([&, g] { b.product(g); });
    const std::vector<double> best = race(runs, 8);
    return {std::accumulate(best.begin() + 2, best.begin() + 7, 0.0), std::accumulate(best.begin() + 7, best.end(), 0.0), best[1],
            probe.work / best[0]};
}

// The whole of `random:` on WINDOWS windows, put together from a chunk's pass through one layer and a batch of rows' through the
// head. What is not a product: norms, rotary embedding, softmax, silu, residuals, log-softmax, and the weights' arrival. Of
// attention, its two products are taken out as if they had run at the peak.
static void bench_forward(Table& table, Bench& b, const LayerSeconds& layer) {
    const Config& c = b.model.config;
    const int rows = std::min(WINDOW, head_batch(c));
    std::vector<int> row_numbers(rows);
    std::iota(row_numbers.begin(), row_numbers.end(), 0);
    Head head = head_load(b.model);
    const std::vector<double> best = race(
        {
            [&] { head_logits(c, head, b.streams[0].x.data.data, row_numbers); },
            [&] { launch(logsumexp_kernel, rows, 1024, head.logsumexp.data, head.logits.data, c.V); },
            [&] { gemm_logits(head.logits.data, head.normed.data, head.W.data, rows, c.V, c.C); },
            [&] { b.load_layer(); },
            [&] { load_param(b.model, {head_name(c), {(size_t)c.V, (size_t)c.C}, head.W.data}); },
        }, 4);
    const double batches = (double)WINDOWS * WINDOW / rows;
    const double pass = c.L * b.chunks() * layer.whole + batches * (best[0] + best[1]);
    const double products = c.L * b.chunks() * layer.products + batches * best[2];
    const double attention_work = c.L * WINDOWS * b.attention_work;
    const double work = WINDOWS * WINDOW * (c.L * b.linear_work + 2.0 * c.V * c.C) + attention_work;
    const double total = pass + c.L * best[3] + best[4];
    table.add_rate(format("attention of %d windows of %d", WINDOWS, WINDOW), WINDOWS * b.attention_work,
                   b.chunks() * layer.attention, layer.peak, LIMIT, with_amx(at_least(0.25), on_gpu(at_least(0.38))));
    const std::string name = format("random:%s, %d windows", SIZE, WINDOWS);
    table.add_rate(name + ", with the head", work, pass, layer.peak, LIMIT, on_gpu(at_least(0.6)));
    table.add({name + ", what is not a product", "s", total - products - attention_work / layer.peak, total, "the whole run",
               with_amx(at_most(0.35), on_cpu(at_most(0.25)))});
    table.add({"  the same and all of attention", "s", total - products, total, "the whole run", no_goal()});
}

// GPTQ of one layer from 128 x 2048 tokens, put together from a chunk's forward pass, its four Hessians, and the four solutions. Returns
// its seconds.
static double bench_gptq(Table& table, Bench& b, const LayerSeconds& layer) {
    const Config& c = b.model.config;
    const Probe probe = peak_probe<floatX>();
    const double chunks = 128.0 * 2048 / b.chunk().T;
    double collect = 0, solve = 0, hessian_work = 0;
    for (int g = 0; g < 4; g++) {
        Quantizer q;
        const int I = b.layer.groups[g].I;
        const auto add = [&] { hessian_collect(q, b.layer.groups[g], g, b.scratch.in.data, b.chunk().T); };
        b.load_layer();
        for (int i = 0; i <= g; i++) b.stage(i);
        add();
        collect += race({add}, 0.5)[0];
        hessian_work += (double)I * (I + 1) * b.chunk().T;
        const auto prepare = [&] {
            b.load_layer();
            q.hessian[g] = Hessian();
            add();
        };
        solve += race({[&] { gptq_solve(q, b.layer, g); }}, 0.5, 3, prepare)[0];
    }
    const double forward = chunks * layer.whole, whole = forward + chunks * collect + solve;
    table.add_rate("Hessians, the upper halves", hessian_work, collect, layer.peak, LIMIT,
                   with_amx(at_least(0.4), no_goal()));
    table.add({format("GPTQ of a layer of random:%s", SIZE), "s", whole, forward, "its forward pass", on_cpu(at_most(2.5))});
    if (GPU) table.add({format("GPTQ of random:%s", SIZE), "s", c.L * whole, 40, "the goal", at_most(1)});
    return whole;
}

// What --rotate adds: rotating the layer once, and to every chunk's pass R3, R4 and the stream's rests. The whole run of a layer is GPTQ
// from 128 samples and the 146 windows of WikiText-2.
static void bench_rotation(Table& table, Bench& b, const LayerSeconds& layer, double gptq) {
    const Config& c = b.model.config;
    const int T = b.chunk().T;
    Rotation r = rotation_make({c.C, c.F, c.H, c.KV, c.D}, 0);
    r.rest = sizeof(floatX) == 2;
    const auto rotate = [&] { rotation_draw_r2(r, 0), rotate_layer(b.layer, r); };
    const double rotating = race({rotate}, 1, 3, [&] { b.load_layer(); })[0];
    b.load_layer();
    Array<floatX> x = random_array<floatX>((size_t)2 * T * c.C);
    const auto stream = [&](const Rotation* rotation) {  // what a layer does to the residual stream itself
        b.layer.rotation = rotation;
        for (const floatX* gain : {b.layer.input_norm, b.layer.post_norm})
            add_to_stream(b.layer, x.data, b.scratch.out.data, T, c.C), norm_of_stream(c, b.layer, b.scratch.in.data, x.data, gain, T);
        b.layer.rotation = nullptr;
    };
    const std::vector<double> best = race({[&] { rotate_queries_and_keys(b.scratch.out.data, T, r); },
                                           [&] { rotate_down_input(b.scratch.in.data, T, b.layer.groups[3], r); }, [&] { stream(&r); },
                                           [&] { stream(nullptr); }}, 4);
    const double rests = std::max(best[2] - best[3], 0.0), online = best[0] + best[1] + rests;
    const double evaluated = 146.0 * WINDOW / T, passes = 128.0 * WINDOW / T + evaluated;
    const double rotations = rotating + passes * online, whole = gptq + evaluated * layer.whole + rotations;
    table.add({"R3 and R4 of a chunk", "ms", 1e3 * (best[0] + best[1]), 1e3 * layer.whole, "its pass through a layer", no_goal()});
    table.add({"the stream's rests of a chunk", "ms", 1e3 * rests, 1e3 * layer.whole, "its pass through a layer", no_goal()});
    table.add({"rotating a layer", "ms", 1e3 * rotating, 1e3 * gptq, "its GPTQ", no_goal()});
    table.add({"rotations of a layer, GPTQ and wikitext2", "s", rotations, whole, "the whole run of a layer", at_most(GPU ? 0.10 : 0.15)});
}

// Device memory of GPTQ and wikitext2 on random:32b, told to stay below 24 GB: of one layer, since all are alike, and of the head.
static void bench_memory(Table& table) {
    const char* args[] = {"bench", "-m", "random:32b", "-q", "gptq", "--device-memory", "24"};
    Run run;
    run.options = options_parse(7, args);
    run.model = model_open(run.options);
    run.model.config.L = 1;
    run.method = method_for(run.options);
    run.quantizer.opt = run.options.quant;
    const Config& c = run.model.config;
    for (const int windows : {128, 146}) run.streams.push_back(random_stream(c, windows, true));
    MemoryUse& use = memory_used(Place::Device);
    const size_t before = use.peak = use.now;
    place_streams(run.options, run.model, run.method, run.streams);
    for (Stream& s : run.streams) stream_embed(run.model, s);
    Scratch scratch = scratch_alloc(c, run.streams);
    sweep(run, scratch, nullptr);
    Head head = head_load(run.model);
    stream_score(c, head, run.streams[1], nullptr, scratch, nullptr);
    table.add({"random:32b, GPTQ and wikitext2, device memory", "GB", 1e-9 * (use.peak - before), 24, "--device-memory", at_most(1)});
}

// ---------------------------------------------------------------------------------------------------------------------
// A mixture of experts

// A chunk through the experts of a layer of random:30b-a3b, from the router's choice to their weighted sum, in turn with a dense layer's
// MLP that is as wide as a token's experts together: the same multiply-adds. Then two layers of it.
static void bench_mixture(Table& table) {
    const char* size = "30b-a3b";
    Config c = config_official(size), dense = c;
    c.L = dense.L = 2;
    dense.F = c.mixture.K * c.mixture.F, dense.mixture = {};
    double work = 0;  // of a token at its experts
    {
        Bench of_experts = bench_model(c), as_wide = bench_model(dense);
        const int T = of_experts.chunk().T;
        for (int g : {2, 3}) work += 2.0 * as_wide.layer.groups[g].O * as_wide.layer.groups[g].I;
        std::vector<Work> runs;
        std::vector<Array<floatX>> kept;
        for (Bench* b : {&of_experts, &as_wide}) {
            for (int i = 0; i <= 2; i++) b->stage(i);
            kept.push_back(Array<floatX>((size_t)T * c.C, "inputs"));
            copy(kept.back().data, b->scratch.in.data, kept.back().n);
            const floatX* from = kept.back().data;
            runs.push_back([=] {
                copy(b->scratch.in.data, from, (size_t)T * c.C);
                b->stage(3), b->stage(4);
            });
        }
        const std::vector<double> best = race(runs, 3);
        table.add_rate(format("experts of random:%s, %d tokens", size, T), T * work, best[0], T * work / best[1], "a dense layer as wide",
                       on_cpu(at_least(0.6)));
    }
    const Probe probe = peak_probe<floatX>();
    Run run;
    run.options.tasks = "wikitext2", run.method = METHODS[0];
    run.model.random = true, run.model.config = c;
    run.streams.push_back(random_stream(c, WINDOWS, false));
    place_streams(run.options, run.model, run.method, run.streams);
    stream_embed(run.model, run.streams[0]);
    Scratch scratch = scratch_alloc(c, run.streams);
    MemoryUse& use = memory_used(Place::Device);
    use.peak = use.now;
    const double peak = race({probe.run}, 0.5)[0];
    sweep(run, scratch, nullptr);
    const double seconds = run.report.seconds_evaluate;
    const double tokens = WINDOWS * WINDOW, linear = 2.0 * layer_size(c, 0, c.mixture.K);
    const double layer = tokens * linear + WINDOWS * 2.0 * c.H * c.D * WINDOW * (WINDOW + 1.0);
    const std::string name = format("random:%s, %d windows, ", size, WINDOWS);
    table.add({name + "a layer", "s", seconds / c.L, layer / (probe.work / peak), LIMIT, no_goal()});
    table.add({name + "a layer", "tokens/s", tokens * c.L / seconds, tokens / (layer / (probe.work / peak)), LIMIT, no_goal()});
    table.add({name + "memory", "GB", 1e-9 * use.peak, 1e-9 * layer_size(c) * sizeof(floatX), "a layer's weights", no_goal()});
}

// ---------------------------------------------------------------------------------------------------------------------
// What is not arithmetic

// The real tokenizer and text where they are there, else the bundled ones.
static void bench_tokenizer(Table& table) {
    const char* env = getenv("QWEN3_DATA");
    std::string data = env && *env ? env : "../shared/data", tokenizer = data + "/qwen3-tokenizer";
    if (!is_directory(tokenizer)) data = tokenizer = "data/tiny";
    const MappedFile file(data + "/wikitext2/wiki.test.raw");
    const Tokenizer t = tokenizer_load(tokenizer);
    std::string text;
    while (text.size() < 10000000) text.append(file.data, file.size);
    const double seconds = race({[&] { tokenizer_encode(t, text); }}, 2)[0];
    table.add({format("tokenizer of %s, 10 MB", std::filesystem::path(tokenizer).filename().string().c_str()), "s", seconds * 1e7 / text.size(), 2, "the goal",
               at_most(1)});
}

static void bench_bundled_model(Table& table) {
    const char* program = getenv("QWEN3");
    const std::string command = std::string(program ? program : "./qwen3") +
                                " -m data/tiny --data data/tiny -q gptq -e wikitext2,c4 >/dev/null 2>&1";
    const Work run = [&] {
        if (system(command.c_str()) != 0) fail("%s: the command failed", command.c_str());
    };
    table.add({"bundled model, GPTQ and both perplexities", "s", race({run}, 0, 2)[0], 20, "the goal", at_most(1)});
}

int main(int argc, char** argv) {
    spin_briefly(argv);  // as the program does
    try {
        const bool json = argc == 3 && strcmp(argv[1], "--json") == 0;
        if (argc != 1 && !json) usage_fail("usage: bench [--json FILE]");
        if (json) require_writable(argv[2]);
        Table table;
        printf("%s, %s, commit %s\n", device_name().c_str(), FLOATX_NAME, COMMIT);
        table.title();
        bool failed = false;
        // What one part runs into is not the others' loss, and what was measured is written at once.
        const auto part = [&](const Work& run) {
            try {
                run();
            } catch (const std::exception& e) {
                fprintf(stderr, "bench: %s\n", e.what()), failed = true;
            }
            if (json) table.write_json(argv[2], COMMIT);
        };
        part([&] { bench_float_products(table, linear_shapes(config_official(SIZE))); });
        part([&] { bench_linear_products(table, linear_shapes(config_official(SIZE))); });
        part([&] {
            Bench b = bench_model(config_official(SIZE));
            const LayerSeconds layer = layer_seconds(b);
            bench_forward(table, b, layer);
            bench_rotation(table, b, layer, bench_gptq(table, b, layer));
        });
        part([&] { bench_mixture(table); });
        part([&] { bench_tokenizer(table); });
        part([&] { bench_bundled_model(table); });
        if (GPU) part([&] { bench_memory(table); });  // needs the most of the host
        table.close();
        return failed;
    } catch (const std::exception& e) {
        fprintf(stderr, "bench: %s\n", e.what());
        return 1;
    }
}
