// test_safetensors.cu: reading and writing checkpoints. Files to be read are put together here byte by byte, and what
// the writer writes is compared with bytes spelled out here.
#include "../data/safetensors.h"
#include "temp.h"
#include "test.h"
#include <csignal>
#include <cstdlib>
#include <random>
#include <sys/resource.h>

// A safetensors file with this header and data.
static std::string file_of(const std::string& header, const std::string& data) {
    uint64_t n = header.size();
    return std::string((const char*)&n, 8) + header + data;
}

static std::string bytes_of(const void* p, size_t n) { return std::string((const char*)p, n); }

// Parses a copy of exactly that size on the heap, so that AddressSanitizer sees a read past its end.
struct Parsed {
    std::vector<unsigned char> bytes;
    std::vector<TensorView> tensors;
    explicit Parsed(const std::string& file) : bytes(file.begin(), file.end()) {
        tensors = safetensors_parse(bytes.data(), bytes.size(), "f.safetensors");
    }
};

static std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, size_t begin,
                         size_t end) {
    return format("\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", name.c_str(), dtype.c_str(),
                  shape.c_str(), begin, end);
}

// ---- reading ----

TEST(safetensors_read) {
    TempFolder tmp;
    const float f[3] = {1.5f, -2.0f, 1e-40f};
    const uint16_t b[4] = {0x3F80, 0xC000, 0x7F80, 0x0001};  // 1, -2, inf, a subnormal
    // In no particular order, unaligned (one byte comes first), with a scalar and an empty tensor.
    const std::string header = "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"x\"}," +
                               entry("f", "F32", "[3]", 9, 21) + "," + entry("b", "BF16", "[2,2]", 1, 9) + "," +
                               entry("empty", "F32", "[0,7]", 9, 9) + "," + entry("scalar", "U8", "[]", 0, 1) + "}  ";
    write_bytes(tmp / "x.safetensors", file_of(header, "\x07" + bytes_of(b, 8) + bytes_of(f, 12)));
    Checkpoint ck = safetensors_open(tmp / "x.safetensors");
    CHECK_EQ(ck.tensors.size(), 4u);
    const TensorView& t = checkpoint_get(ck, "b", {2, 2});
    CHECK_EQ(t.name, "b");
    CHECK_EQ(t.dtype, "BF16");
    CHECK_EQ(t.file, tmp / "x.safetensors");
    CHECK_EQ(t.n_bytes, 8u);
    CHECK_EQ(tensor_size(t), 4u);
    float out[4];
    tensor_to_f32(t, 0, 4, out);
    CHECK(out[0] == 1.0f && out[1] == -2.0f && out[2] == INFINITY && out[3] == std::ldexp(1.0f, -133));
    tensor_to_f32(t, 1, 2, out);
    CHECK(out[0] == -2.0f && out[1] == INFINITY);
    uint16_t half[4];
    tensor_to_bf16(t, 0, 4, half);
    CHECK_EQ(memcmp(half, b, 8), 0);
    tensor_to_f32(checkpoint_get(ck, "f", {3}), 0, 3, out);
    CHECK_EQ(memcmp(out, f, 12), 0);
    tensor_to_f32(checkpoint_get(ck, "f", {3}), 3, 0, out);
    tensor_to_f32(checkpoint_get(ck, "empty", {0, 7}), 0, 0, out);
    CHECK_EQ(checkpoint_get(ck, "scalar", {}).data[0], 7);
    CHECK(checkpoint_find(ck, "nothing") == nullptr);
    CHECK(checkpoint_find(ck, "__metadata__") == nullptr);

    CHECK_ERROR(tensor_to_f32(t, 2, 3, out), "tensor \"b\" has 4 values, but 3 from 2 on were asked for");
    CHECK_ERROR(tensor_to_f32(t, 5, 0, out), "tensor \"b\" has 4 values");
    CHECK_ERROR(tensor_to_bf16(t, 1, SIZE_MAX, half), "tensor \"b\" has 4 values");
    CHECK_ERROR(tensor_to_f32(checkpoint_get(ck, "scalar", {}), 0, 1, out), "should be BF16, F16 or F32, found U8");
    CHECK_ERROR(tensor_to_bf16(checkpoint_get(ck, "scalar", {}), 0, 1, half), "should be BF16, F16 or F32, found U8");
    CHECK_ERROR(checkpoint_get(ck, "b", {4}), "x.safetensors: tensor \"b\" should have shape [4], found [2, 2]");
    CHECK_ERROR(checkpoint_get(ck, "skalar", {}), "tensor \"skalar\" is missing; the closest name there is \"scalar\"");
}

TEST(safetensors_dtypes) {
    struct {
        const char* dtype;
        size_t size;
    } cases[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
                 {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
                 {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8}};
    for (const auto& c : cases) {
        Parsed p(file_of("{" + entry("t", c.dtype, "[3]", 0, 3 * c.size) + "}", std::string(3 * c.size, 'x')));
        CHECK_EQ(p.tensors[0].n_bytes, 3 * c.size);
        CHECK_EQ(tensor_size(p.tensors[0]), 3u);
    }
    CHECK_EQ(Parsed(file_of("{}", "")).tensors.size(), 0u);
}

TEST(safetensors_bad_files) {
    const std::string good = entry("t", "F32", "[2]", 0, 8), data(8, 'x');
    CHECK_EQ(Parsed(file_of("{" + good + "}", data)).tensors.size(), 1u);
    struct {
        std::string file, message;
    } cases[] = {
        {"", "f.safetensors: expected a safetensors file, found only 0 bytes"},
        {"1234567", "found only 7 bytes"},
        {file_of("{" + good + "}", data).substr(0, 30), "bytes, but the file has 30 bytes"},
        {std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10), "the header should be 18446744073709551615 bytes"},
        {std::string("\0\0\0\0\0\0\0\0", 8), "(header): broken JSON at column 1: expected a value, found the end"},
        {file_of("{" + good, data), "(header): broken JSON"},
        {file_of("{" + good + "}\xFF", data), "(header): broken JSON at column 55: expected UTF-8"},
        {file_of("[1]", data), "(header): expected an object, found an array of 1"},
        {file_of("{" + good + "," + good + "}", data), "the key \"t\" twice"},
        {file_of("{\"t\":5}", data), "tensor \"t\": expected an object with \"dtype\", found the number 5"},
        {file_of("{\"t\":{\"shape\":[2],\"data_offsets\":[0,8]}}", data), "tensor \"t\": \"dtype\" is missing"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", data), "tensor \"t\": \"shape\" is missing"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", data), "tensor \"t\": \"data_offsets\" is missing"},
        {file_of("{\"t\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", data), "\"dtype\" should be a string"},
        {file_of("{" + entry("t", "F33", "[2]", 0, 8) + "}", data), "tensor \"t\": unknown dtype \"F33\""},
        {file_of("{" + entry("t", "F32", "2", 0, 8) + "}", data), "\"shape\" should be an array, found the number 2"},
        {file_of("{" + entry("t", "F32", "[-2]", 0, 8) + "}", data), "integers >= 0, found the number -2"},
        {file_of("{" + entry("t", "F32", "[2.0]", 0, 8) + "}", data), "integers >= 0, found the number 2"},
        {file_of("{" + entry("t", "F32", "[\"2\"]", 0, 8) + "}", data), "integers >= 0, found the string \"2\""},
        {file_of("{" + entry("t", "F32", "[18446744073709551618]", 0, 8) + "}", data), "integers >= 0"},
        {file_of("{" + entry("t", "F32", "[4294967296,4294967296]", 0, 8) + "}", data),
         "shape [4294967296, 4294967296] of F32 overflows"},
        {file_of("{" + entry("t", "F32", "[4611686018427387906]", 0, 8) + "}", data), "of F32 overflows"},
        {file_of("{" + entry("t", "F32", "[1]", 0, 8) + "}", data), "[1] of F32 needs 4 bytes, data_offsets span 8"},
        {file_of("{" + entry("t", "F32", "[3]", 0, 8) + "}", data),
         "shape [3] of F32 needs 12 bytes, data_offsets span 8"},
        {file_of("{" + entry("t", "F32", "[2]", 4, 12) + "}", data),
         "tensor \"t\": its bytes end at 12, but the file holds 8 bytes of data. HINT: the file is truncated"},
        {file_of("{" + entry("t", "F32", "[0]", 9, 9) + "}", data), "its bytes end at 9"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", data), "0 <= begin <= end"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", data), "0 <= begin <= end"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", data), "two integers"},
        {file_of("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.0]}}", data), "two integers"},
        {file_of("{" + good + "," + entry("u", "U8", "[4]", 6, 10) + "}", data + "yy"),
         "tensor \"u\" begins at byte 6, but the tensor before it ends at 8: they overlap"},
        {file_of("{" + good + "," + entry("u", "F32", "[2]", 0, 8) + "}", data), "they overlap"},
        {file_of("{" + good + "," + entry("u", "U8", "[2]", 9, 11) + "}", data + "yyy"),
         "tensor \"u\" begins at byte 9, but the tensor before it ends at 8: there is a hole"},
        {file_of("{" + entry("t", "F32", "[2]", 1, 9) + "}", data + "y"), "there is a hole"},
        {file_of("{" + good + "}", data + "y"), "the tensors cover 8 bytes, but the file holds 9 bytes of data"},
        {file_of("{}", data), "the tensors cover 0 bytes, but the file holds 8"},
    };
    for (const auto& c : cases) CHECK_ERROR(Parsed(c.file), c.message);
    // Above the format's limit, though the file would be long enough.
    TempFolder tmp;
    write_bytes(tmp / "long", std::string("\x01\xE1\xF5\x05\0\0\0\0", 8));
    CHECK_EQ(truncate((tmp / "long").c_str(), 200000000), 0);
    CHECK_ERROR(safetensors_open(tmp / "long"), "the header should be 100000001 bytes");
    CHECK_ERROR(safetensors_open(tmp / "none"), "/none: the file can't be opened");
}

// Damaged headers are read or refused, and what is read lies within the file; AddressSanitizer watches.
TEST(safetensors_mutations) {
    const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + entry("a.weight", "BF16", "[4,2]", 0, 16) +
                               "," + entry("b", "F32", "[3]", 16, 28) + "," + entry("c", "U8", "[1,4,1]", 28, 32) + "}";
    const std::string valid = file_of(header, std::string(32, '\x55')), alphabet = "0123456789-[]{},:\"FBU 6e.";
    std::mt19937 rng(11);
    int read = 0, refused = 0;
    size_t checksum = 0;
    for (int round = 0; round < 20000; round++) {
        std::string file = valid;
        for (int k = 1 + (int)(rng() % 3); k > 0 && !file.empty(); k--) {
            size_t at = rng() % std::min(file.size(), header.size() + 8);
            switch (rng() % 8) {
            case 0: file.resize(rng() % file.size()); break;
            case 1: file[at] = (char)(file[at] ^ 1 << rng() % 8); break;
            case 2: file.insert(at, 1, alphabet[rng() % alphabet.size()]); break;
            case 3: file[0] = (char)(file[0] + (int)(rng() % 9) - 4); break;
            default: file[at] = alphabet[rng() % alphabet.size()];
            }
        }
        try {
            Parsed p(file);
            for (const TensorView& t : p.tensors) {
                size_t bytes;
                CHECK(tensor_bytes(t.dtype, t.shape, &bytes) && bytes == t.n_bytes);
                for (size_t i = 0; i < t.n_bytes; i++) checksum += t.data[i];
            }
            read++;
        } catch (const TestFailure&) {
            throw;
        } catch (const std::runtime_error&) {
            refused++;
        }
    }
    CHECK(read > 100 && checksum > 0);
    CHECK(refused > 1000);
}

// ---- values ----

// A half-precision value by the definition: sign, 5 bits of exponent (bias 15), 10 of mantissa.
static double half_value(unsigned h) {
    const int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double x = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) x = mantissa ? NAN : INFINITY;
    return h >> 15 ? -x : x;
}

static TensorView view_of(const void* data, const char* dtype, size_t n) {
    return {"t", dtype, "f", {n}, (const unsigned char*)data, n * dtype_size(dtype)};
}

TEST(values_f16_all) {
    std::vector<uint16_t> all(65536), to_bf16(65536);
    std::vector<float> to_f32(65536);
    for (unsigned h = 0; h < 65536; h++) all[h] = (uint16_t)h;
    TensorView t = view_of(all.data(), "F16", all.size());
    tensor_to_f32(t, 0, all.size(), to_f32.data());
    tensor_to_bf16(t, 0, all.size(), to_bf16.data());
    std::vector<uint16_t> rounded(65536);
    tensor_to_bf16(view_of(to_f32.data(), "F32", all.size()), 0, all.size(), rounded.data());
    for (unsigned h = 0; h < 65536; h++) {
        double expected = half_value(h);
        if (std::isnan(expected)) {
            CHECK(std::isnan(to_f32[h]));
        } else {
            CHECK_EQ((double)to_f32[h], expected);
            uint32_t bits;  // std::signbit won't do: -fno-signed-zeros lets it ignore a zero's sign
            memcpy(&bits, &to_f32[h], 4);
            CHECK_EQ(bits >> 31, h >> 15);
        }
        CHECK_EQ(to_bf16[h], rounded[h]);
    }
}

// Rounding to bf16 against its definition: the nearer neighbour in double, the even one of two equally near.
TEST(values_bf16_rounding) {
    auto value = [](uint32_t bits) {  // of a finite float, or of 2^128 for what would be infinity
        const int exponent = (int)(bits >> 23 & 255);
        const double mantissa = bits & 0x7FFFFF;
        return exponent == 0 ? std::ldexp(mantissa, -149) : std::ldexp(8388608 + mantissa, exponent - 150);
    };
    std::mt19937 rng(3);
    std::vector<uint32_t> bits;
    for (int i = 0; i < 200000; i++) bits.push_back((uint32_t)rng());
    for (uint32_t high :
         {0x0000u, 0x0001u, 0x007Fu, 0x0080u, 0x3F80u, 0x3F81u, 0x7F7Eu, 0x7F7Fu, 0x7F80u, 0x7FC0u, 0x7FFFu}) {
        for (uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu}) {
            bits.push_back(high << 16 | low);
            bits.push_back(0x80000000 | high << 16 | low);
        }
    }
    std::vector<uint16_t> out(bits.size());
    std::vector<float> back(bits.size());
    tensor_to_bf16(view_of(bits.data(), "F32", bits.size()), 0, bits.size(), out.data());
    tensor_to_f32(view_of(out.data(), "BF16", out.size()), 0, out.size(), back.data());
    for (size_t i = 0; i < bits.size(); i++) {
        const uint32_t magnitude = bits[i] & 0x7FFFFFFF, below = magnitude & 0x7FFF0000, above = below + 0x10000;
        if (magnitude > 0x7F800000) {
            CHECK(std::isnan(back[i]));
            continue;
        }
        const double x = value(magnitude), down = x - value(below), up = value(above) - x;
        const bool take_below = magnitude == 0x7F800000 || down < up || (down == up && (below >> 16 & 1) == 0);
        const uint32_t expected = (take_below ? below : above) >> 16 | (bits[i] >> 31 << 15);
        CHECK_EQ(out[i], expected);
        uint32_t again;
        memcpy(&again, &back[i], 4);
        CHECK_EQ(again, (uint32_t)out[i] << 16);
    }
}

// ---- checkpoints ----

static const std::string one_tensor = file_of("{" + entry("a", "U8", "[2]", 0, 2) + "}", "xy");

// Weights in a form that isn't read are named, instead of a hint to download others.
TEST(checkpoint_in_another_form) {
    const struct {
        const char *file, *found;
    } forms[] = {{"qwen3-q4_k_m.gguf", "found GGUF (llama.cpp's format): qwen3-q4_k_m.gguf. HINT: get or save the model as safetensors"},
                 {"pytorch_model-00001-of-00002.bin", "found PyTorch's pickled weights: pytorch_model-00001-of-00002.bin"},
                 {"consolidated.00.pth", "found PyTorch's pickled weights: consolidated.00.pth"},
                 {"adapter_model.safetensors", "found an adapter (LoRA) without its model"},
                 {"model-00001-of-00002.safetensors", "without an index: model-00001-of-00002.safetensors"},
                 {"tf_model.h5", "found TensorFlow's weights"}};
    for (const auto& form : forms) {
        TempFolder tmp;
        write_bytes(tmp / "config.json", "{}");
        write_bytes(tmp / form.file, "x");
        CHECK_ERROR(checkpoint_open(tmp.path), form.found);
        CHECK(checkpoint_format_found(tmp / form.file) == checkpoint_format_found(tmp.path));
        CHECK(!checkpoint_format_found(tmp.path).empty());
    }
    TempFolder tmp;
    write_bytes(tmp / "config.json", "{}");
    CHECK_EQ(checkpoint_format_found(tmp.path), "");
    CHECK_EQ(checkpoint_format_found(tmp / "none"), "");
    write_bytes(tmp / "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    CHECK_ERROR(checkpoint_open(tmp.path), "model.safetensors: expected a safetensors file, found Git LFS's pointer to it. HINT: git lfs pull");
}

TEST(checkpoint_with_packed_tensors) {
    const struct {
        const char *tensor, *found;
    } forms[] = {{"m.qweight", "(GPTQ or AWQ)"},         {"m.weight_packed", "(compressed-tensors)"},
                 {"m.codebooks", "(AQLM)"},              {"m.weight.absmax", "(bitsandbytes, 4 bits)"},
                 {"m.SCB", "(bitsandbytes, 8 bits)"},      {"m.W_q", "(HQQ)"}};
    for (const auto& form : forms) {
        TempFolder tmp;
        write_bytes(tmp / "model.safetensors", file_of("{" + entry(form.tensor, "U8", "[2]", 0, 2) + "}", "xy"));
        const Checkpoint ck = checkpoint_open(tmp.path);
        CHECK_ERROR(checkpoint_get(ck, "m.weight", {2}), form.found);
        CHECK_ERROR(checkpoint_get(ck, "n.weight", {2}), "tensor \"n.weight\" is missing; the closest name");
        CHECK_EQ(checkpoint_get(ck, form.tensor, {2}).n_bytes, 2u);
    }
    TempFolder tmp;  // 4 bits of bitsandbytes lie under the tensor's own name, in another shape
    write_bytes(tmp / "model.safetensors",
                file_of("{" + entry("m.weight", "U8", "[2,1]", 0, 2) + "," + entry("m.weight.absmax", "U8", "[1]", 2, 3) + "}", "xyz"));
    CHECK_ERROR(checkpoint_get(checkpoint_open(tmp.path), "m.weight", {2, 2}), "(bitsandbytes, 4 bits)");
}

TEST(checkpoint_sharded) {
    TempFolder tmp;
    CHECK_ERROR(checkpoint_open(tmp / "models/Qwen3-8B"),
                "/models/Qwen3-8B: there is no such checkpoint folder. HINT: scripts/download.sh Qwen3-8B gets");
    CHECK_ERROR(checkpoint_open(tmp / "models/Qwen3-8B/"), "HINT: scripts/download.sh Qwen3-8B gets");
    CHECK_ERROR(checkpoint_open(tmp.path), "expected model.safetensors or model.safetensors.index.json, found neither. "
                                           "HINT: scripts/download.sh Qwen3-0.6B-Base");
    const std::string index = tmp / "model.safetensors.index.json";
    write_bytes(index, "{\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\"}}");
    CHECK_ERROR(checkpoint_open(tmp.path), "/s1: this shard is missing, model.safetensors.index.json lists it. HINT: ");
    write_bytes(tmp / "s1", one_tensor);
    write_bytes(tmp / "s2", one_tensor);
    CHECK_ERROR(checkpoint_open(tmp.path), "should be in s2, but it isn't. HINT: ");
    // Shard 2 has an `a` of its own, which the index doesn't point to.
    write_bytes(tmp / "s2", file_of("{" + entry("b", "U8", "[1]", 0, 1) + "," + entry("a", "U8", "[1]", 1, 2) + "," +
                                        entry("c", "BF16", "[1]", 2, 4) + "}",
                                    "BA\x80\x3F"));
    Checkpoint ck = checkpoint_open(tmp.path);
    CHECK_EQ(ck.tensors.size(), 3u);
    CHECK_EQ(checkpoint_get(ck, "a", {2}).data[1], 'y');
    CHECK_EQ(checkpoint_get(ck, "b", {1}).data[0], 'B');
    CHECK_EQ(checkpoint_get(ck, "c", {1}).file, tmp / "s2");
    CHECK_ERROR(checkpoint_get(ck, "lm_head.weight", {1}), tmp.path + ": tensor \"lm_head.weight\" is missing");
    write_bytes(tmp / "s2", one_tensor.substr(0, 20));
    CHECK_ERROR(checkpoint_open(tmp.path), "/s2: the header should be");

    struct {
        const char *text, *message;
    } bad[] = {{"{", "model.safetensors.index.json: broken JSON"},
               {"{}", "model.safetensors.index.json: \"weight_map\" is missing"},
               {"{\"weight_map\":[]}", "\"weight_map\" should be an object"},
               {"{\"weight_map\":{\"a\":1}}",
                "tensor \"a\" should be mapped to a file name in the same folder, found the number 1"},
               {"{\"weight_map\":{\"a\":\"../s1\"}}", "to a file name in the same folder, found the string \"../s1\""},
               {"{\"weight_map\":{\"a\":\"/s1\"}}", "to a file name in the same folder"},
               {"{\"weight_map\":{\"a\":\"\"}}", "to a file name in the same folder"}};
    for (const auto& b : bad) {
        write_bytes(index, b.text);
        CHECK_ERROR(checkpoint_open(tmp.path), b.message);
    }
    write_bytes(tmp / "model.safetensors", one_tensor);  // the single file goes before the index
    CHECK_EQ(checkpoint_open(tmp.path).tensors.size(), 1u);
    CHECK_ERROR(checkpoint_get(checkpoint_open(tmp.path), "b", {1}), "the closest name there is \"a\"");
}

// ---- writing ----

TEST(writer_bytes) {
    TempFolder tmp;
    const std::string path = tmp / "out.safetensors";
    {
        SafetensorsWriter w(path, {{"one", "BF16", {2, 1}}, {"empty", "F32", {0}}, {"two", "U8", {3}}});
        w.write("one", "abc", 3);
        w.write("one", "d", 1);
        w.write("empty", "", 0);
        w.write("two", "efg", 3);
        w.finish();
    }
    std::string header =
        "{\"__metadata__\":{\"format\":\"pt\"},\"one\":{\"dtype\":\"BF16\",\"shape\":[2, 1],\"data_offsets\":[0,4]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]},"
        "\"two\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[4,7]}}";
    while (header.size() % 8) header += ' ';
    CHECK_EQ(read_bytes(path), file_of(header, "abcdefg"));

    SafetensorsWriter w(path, {{"one", "U8", {2}}, {"two", "U8", {1}}});
    CHECK_ERROR(w.write("two", "x", 1), "tensor \"two\" is written out of order, the next one is \"one\"");
    CHECK_ERROR(w.write("one", "xyz", 3), "tensor \"one\" has 2 bytes left to write, got 3");
    w.write("one", "x", 1);
    CHECK_ERROR(w.finish(), "1 bytes of tensor \"one\" were not written");
    w.write("one", "x", 1);
    CHECK_ERROR(w.finish(), "1 bytes of tensor \"two\" were not written");
    w.write("two", "x", 1);
    CHECK_ERROR(w.write("two", "x", 1), "out of order, the next one is none");
    w.finish();
    CHECK_ERROR(SafetensorsWriter(path, {{"a", "U8", {1}}, {"a", "U8", {1}}}),
                "tensor \"a\" can't be written: the name is");
    CHECK_ERROR(SafetensorsWriter(path, {{"a", "X8", {1}}}), "tensor \"a\" can't be written: dtype X8, shape [1]");
    CHECK_ERROR(SafetensorsWriter(path, {{"a", "U8", {SIZE_MAX, 2}}}), "can't be written: dtype U8, shape [");
    CHECK_ERROR(SafetensorsWriter(tmp / "no/x", {}), "/no/x: the file can't be created: No such file or directory");
    CHECK_ERROR(SafetensorsWriter("/dev/full", {}), "/dev/full: writing byte 0 of at least 8 failed: No space left");
}

static size_t entries_in(const std::string& folder) {
    size_t n = 0;
    for (const auto& e : std::filesystem::directory_iterator(folder)) n += !e.path().empty();
    return n;
}

static const std::vector<TensorSpec> three = {{"a", "F32", {2, 2}}, {"b", "BF16", {4}}, {"c", "U8", {5}}};

static void write_three(CheckpointWriter& w) {
    w.write("a", "0123456789abcdef", 16);
    w.write("b", "ABCDEFGH", 8);
    w.write("c", "vwxyz", 5);
}

TEST(writer_checkpoint) {
    TempFolder tmp;
    write_bytes(tmp / "tokenizer.json", "{\"x\":1}");
    for (bool sharded : {false, true}) {
        const std::string dir = tmp / (sharded ? "sharded" : "single");
        {
            CheckpointWriter w(dir + "/", three, sharded ? 13 : 29);
            w.write_text("config.json", "{}\n");
            w.copy_file(tmp / "tokenizer.json");
            write_three(w);
            CHECK(!is_directory(dir));  // nothing there until it is finished
            w.finish();
        }
        CHECK_EQ(entries_in(dir), sharded ? 5u : 3u);
        CHECK_EQ(read_bytes(dir + "/config.json"), "{}\n");
        CHECK_EQ(read_bytes(dir + "/tokenizer.json"), "{\"x\":1}");
        Checkpoint ck = checkpoint_open(dir);
        CHECK_EQ(ck.files.size(), sharded ? 2u : 1u);
        CHECK_EQ(memcmp(checkpoint_get(ck, "a", {2, 2}).data, "0123456789abcdef", 16), 0);
        CHECK_EQ(memcmp(checkpoint_get(ck, "b", {4}).data, "ABCDEFGH", 8), 0);
        CHECK_EQ(memcmp(checkpoint_get(ck, "c", {5}).data, "vwxyz", 5), 0);
    }
    // a alone is above the limit of 13 bytes; b and c fit together exactly.
    Json index = json_parse_file(tmp / "sharded/model.safetensors.index.json");
    CHECK_EQ(index.find("metadata")->find("total_size")->integer, 29);
    const Json& map = *index.find("weight_map");
    CHECK_EQ(map.find("a")->string, "model-00001-of-00002.safetensors");
    CHECK_EQ(map.find("b")->string, "model-00002-of-00002.safetensors");
    CHECK_EQ(map.find("c")->string, "model-00002-of-00002.safetensors");
    CHECK_EQ(entries_in(tmp.path), 3u);
}

TEST(writer_checkpoint_refuses) {
    TempFolder tmp;
    const std::string dir = tmp / "dir";
    mkdir(dir.c_str(), 0777);
    { CheckpointWriter w(dir, three); }
    CHECK_EQ(entries_in(tmp.path), 1u);
    {
        CheckpointWriter w(dir, three);  // an empty folder is as good as none
        write_three(w);
        w.finish();
    }
    CHECK_EQ(entries_in(dir), 1u);
    CHECK_ERROR(CheckpointWriter(dir, three), "/dir: there is something here already. HINT: ");
    CHECK_ERROR(CheckpointWriter(dir + "//", three), "/dir: there is something here already");
    CHECK_ERROR(CheckpointWriter(dir + "/model.safetensors", three), "there is something here already");
    CHECK_ERROR(CheckpointWriter("/", three), "/: there is something here already");
    CHECK_ERROR(CheckpointWriter(dir + "/model.safetensors/x", three), "can't be created: Not a directory. HINT: ");
    CHECK_ERROR(CheckpointWriter(tmp / "no/dir", three), "the folder can't be created: No such file or directory");
    CHECK_ERROR(CheckpointWriter("/proc/qwen3", three), "/proc/qwen3.tmp-");
    CHECK_ERROR(CheckpointWriter(tmp / "x", {{"a", "U8", {1}}, {"a", "U8", {1}}}), "the name is taken");
    CHECK_EQ(entries_in(tmp.path), 1u);
    {
        CheckpointWriter w(tmp / "late", three);
        write_three(w);
        CHECK_ERROR(w.write("d", "x", 1), "/late: tensor \"d\" comes after the last one");
        CHECK_ERROR(w.copy_file(tmp / "none"), "/none: the file can't be opened");
        mkdir((tmp / "late").c_str(), 0777);
        write_bytes(tmp / "late/file", "x");  // somebody else was faster
        CHECK_ERROR(w.finish(), "can't be given this name: Directory not empty. HINT: it is complete in ");
    }
    CHECK_EQ(entries_in(tmp.path), 3u);  // hours of work are not thrown away
}

TEST(writer_checkpoint_abandoned) {
    TempFolder tmp;
    {
        CheckpointWriter w(tmp / "dir", three, 13);
        w.write_text("config.json", "{}");
        w.write("a", "0123456789abcdef", 16);
        w.write("b", "AB", 2);
        CHECK_EQ(entries_in(tmp.path), 1u);
        CHECK_ERROR(w.finish(), "6 bytes of tensor \"b\" were not written");
    }
    CHECK_EQ(entries_in(tmp.path), 0u);
    {
        CheckpointWriter w(tmp / "empty", {{"e", "F32", {0, 4}}});
        w.finish();
        CHECK_EQ(checkpoint_get(checkpoint_open(tmp / "empty"), "e", {0, 4}).n_bytes, 0u);
    }
}

// A disk that fills up in the middle of a tensor, played by a limit on the size of files.
TEST(writer_full_disk) {
    TempFolder tmp;
    struct rlimit old;
    getrlimit(RLIMIT_FSIZE, &old);
    struct rlimit small = {4096, old.rlim_max};
    auto handler = signal(SIGXFSZ, SIG_IGN);
    std::string message;
    setrlimit(RLIMIT_FSIZE, &small);
    try {
        CheckpointWriter w(tmp / "dir", {{"big", "U8", {100000}}});
        const std::string bytes(100000, 'x');
        w.write("big", bytes.data(), bytes.size());
        w.finish();
    } catch (const std::runtime_error& e) {
        message = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    CHECK_ERROR(throw std::runtime_error(message), "/model.safetensors: writing byte 4096 of at least 100104 failed");
    CHECK_ERROR(throw std::runtime_error(message), "File too large. HINT: is there space left on the disk?");
    CHECK_EQ(entries_in(tmp.path), 0u);
}
