// options.h: what the command line makes of rotations, presets and the grids of what flows, and what it refuses.
#include "golden.h"
#include "test.h"

static Options parse(std::vector<const char*> args) {
    args.insert(args.begin(), "qwen3");
    return options_parse((int)args.size(), args.data());
}

TEST(presets_are_the_papers_settings) {
    const Options q = parse({"--preset", "quarot"}), s = parse({"--preset", "spinquant", "-b", "8"});
    CHECK(q.method == "gptq" && q.rotate && !q.learn_rotation && rotates(q, "heads") && q.quant.sym_signed && q.quant.mse);
    CHECK(q.quant.abits == 4 && !q.quant.a_asym && q.quant.a_clip == 0.9 && q.quant.k_bits == 4 && q.quant.kv_clip == 0.95);
    CHECK(q.calibration_set == "wikitext2" && q.quant.group_size == -1 && !q.quant.act_order);
    CHECK(s.learn_rotation && s.quant.a_asym && s.quant.a_heads && s.quant.v_bits == 4 && s.quant.kv_clip == 1 &&
          s.quant.wbits == 8);
    CHECK(!parse({"--preset", "spinquant", "--rotation", "x"}).learn_rotation);
    CHECK_EQ(parse({"--preset", "quarot", "-q", "rtn"}).method, "rtn");
    // What a rotation is learned from stays the preset's, whatever the method; without learning, rtn calibrates nothing.
    CHECK_EQ(parse({"--preset", "spinquant", "-q", "rtn"}).calibration_set, "wikitext2");
    CHECK(!parse({"--preset", "spinquant", "-q", "rtn", "--rotation", "x"}).given.count("-c"));
    // R3 is for keys of few bits.
    CHECK_EQ(q.rotate_only, "r1,r2,r3,r4,heads");
    CHECK_EQ(parse({"--preset", "quarot", "--kv-bits", "16"}).rotate_only, "r1,r2,r4,heads");
    CHECK_EQ(parse({"--preset", "quarot", "--k-bits", "16"}).rotate_only, "r1,r2,r4,heads");
    CHECK_EQ(parse({"--preset", "quarot", "--k-bits", "16"}).preset_text.find("r3"), std::string::npos);  // nor does the log say so
    CHECK_EQ(parse({"--preset", "quarot", "--k-bits", "16", "--v-bits", "16"}).preset_text.find("--kv-clip"), std::string::npos);
    CHECK_EQ(parse({"--preset", "quarot", "--k-bits", "16", "--rotate-only", "r1,r3"}).rotate_only, "r1,r3");
    CHECK_EQ(parse({"--rotate"}).rotate_only, "r1,r2,r4");
    CHECK_EQ(parse({"-q", "rtn", "--rotate", "--kv-bits", "4"}).rotate_only, "r1,r2,r3,r4");
    CHECK(parse({"--preset", "quarot", "--k-bits", "16", "--v-bits", "16"}).quant.kv_clip == 1);
    CHECK(parse({"--preset", "quarot", "--k-bits", "16"}).quant.kv_clip == 0.95);
    CHECK_ERROR(parse({"--preset", "quarot", "--kv-bits", "16", "--kv-clip", "0.9"}), "--kv-clip has no meaning without");
    const Options f = parse({"--preset", "foem-w4a4kv4"});
    CHECK(f.method == "foem" && f.calibration_set == "c4" && f.quant.alpha == 0.3 && f.quant.beta == 0.1 && f.quant.a_heads);
    // The user's flags take those of the preset with them that have no meaning beside them.
    CHECK(parse({"--preset", "quarot", "-a", "16"}).quant.a_clip == 1 && parse({"--preset", "quarot", "-a", "8"}).quant.a_clip == 0.9);
    CHECK(parse({"--preset", "quarot", "--kv-bits", "16"}).quant.kv_clip == 1);
    CHECK(parse({"--preset", "quarot", "--sym"}).quant.sym && !parse({"--preset", "quarot", "--sym"}).quant.sym_signed);
    CHECK_EQ(parse({"--preset", "quarot", "--rotate-offline"}).rotate_only, "r1,r2");
    CHECK_EQ(parse({"--preset", "quarot", "-q", "fp16", "--kl"}).rotate_only, "r1,r2,r4,heads");  // whose keys have 16 bits
    CHECK_ERROR(parse({"--preset", "quarot", "-a", "16", "--a-clip", "0.8"}), "--a-clip has no meaning without bits of activations");
    CHECK(q.preset_text.find("--kv-clip 0.95") != std::string::npos);
    CHECK_ERROR(parse({"--preset", "quarto"}), "did you mean quarot?");
}

TEST(grids_of_flows_that_make_no_sense_say_why) {
    CHECK(parse({"--kl", "--rotate-offline"}).rotate && parse({"--kl", "--rotation", "x"}).rotate);  // a rotated model may be compared
    CHECK_ERROR(parse({"--kl"}), "--kl has no meaning with -q fp16");
    CHECK_ERROR(parse({"-q", "gptq", "--a-asym"}), "--a-asym has no meaning without bits of activations");
    CHECK_ERROR(parse({"-q", "gptq", "--kv-bits", "1"}), "--kv-bits 1: expected 2 to 8 bits, or 16 for none");
    CHECK_ERROR(parse({"-q", "gptq", "--kv-clip", "0.9"}), "--kv-clip has no meaning without");
    CHECK_ERROR(parse({"-q", "gptq", "-a", "4", "--a-clip", "1.5"}), "--a-clip 1.5: expected more than 0");
    CHECK_ERROR(parse({"-q", "gptq", "-a", "4", "--a-group", "0"}), "--a-group 0: expected a positive number");
    CHECK_ERROR(check_group_size(config_official("4b"), "--a-group", 96, "token"), "--a-group 96: expected a divisor of the model's hidden_size");
    const QuantOptions o = parse({"-q", "gptq", "--kv-bits", "4", "--v-bits", "8"}).quant;
    CHECK_EQ(o.k_bits, 4);
    CHECK_EQ(o.v_bits, 8);
}

TEST(methods_that_a_rotation_does_not_go_with_say_why) {
    CHECK_ERROR(parse({"-q", "awq", "--rotate"}), "a rotation makes all channels equally large");
    CHECK_ERROR(parse({"-q", "smoothquant", "--rotate"}), "a rotation makes all channels equally large");
    CHECK_ERROR(parse({"-q", "billm", "--rotate"}), "a rotation leaves none");
    CHECK_ERROR(parse({"--rotate", "--rotate-only", "r1,r5"}), "expected a list of r1, r2, r3, r4 and heads, found \"r5\"");
    CHECK_ERROR(parse({"--rotate", "--rotate-only", "r1 r2"}), "found \"r1 r2\"");
    CHECK_ERROR(parse({"--rotate-block", "64"}), "--rotate-block has no meaning without --rotate");
    CHECK_ERROR(parse({"--rotate", "--rotate-only", "r2", "--rotate-block", "64"}), "--rotate-block has no meaning without r1 and r4");
    CHECK_ERROR(parse({"--rotate", "--save", "x"}), "what r3, r4 and heads do online has no place in a checkpoint");
    CHECK_ERROR(parse({"-q", "rtn", "--rotate-offline", "--save", "x", "-a", "8"}), "and not the bits of what flows");
    // Learning calibrates, whatever the method.
    CHECK_EQ(parse({"--learn-rotation", "-c", "wikitext2", "-l", "64"}).sample_length, 64);
    CHECK_ERROR(parse({"-q", "rtn", "--rotate", "-l", "64"}), "-l has no meaning with -q rtn");
    CHECK_ERROR(parse({"--learn-rotation", "-n", "64"}), "-n has no meaning with -q fp16");
    CHECK_ERROR(parse({"-q", "smoothquant", "--no-smooth", "--alpha", "0.9"}), "--alpha has no meaning with --no-smooth");
    // R4 may be in blocks where R1 is given.
    CHECK_EQ(parse({"--rotation", "x", "--rotate-block", "64"}).rotate_block, 64);
    CHECK_ERROR(parse({"--rotation", "x", "--rotate-offline", "--rotate-block", "64"}), "--rotate-block has no meaning with a rotation that is");
    CHECK_ERROR(parse({"-q", "rtn", "--rotate-offline", "--learn-rotation", "--rotation", "s/r", "--save", "s"}),
                "--rotation s/r: this is in the folder of --save");
}

// Parts, blocks, signs, and the rest that the stream keeps.
TEST(options_reach_the_rotation) {
    const Config c = config_official("0.6b");
    CHECK(c.C == 1024 && c.F == 3072 && c.H == 16 && c.D == 128);
    auto rotation_of = [&](std::vector<const char*> args) { return rotation_for(parse(args), c); };
    const std::string parts[] = {"r1", "r2", "r3", "r4", "heads"};
    for (const std::string& part : parts) {
        const Rotation r = rotation_of({"--rotate", "--rotate-only", part.c_str()});
        const bool has[] = {r.has.r1, r.has.r2, r.has.r3, r.has.r4, r.has.over_heads};
        for (int i = 0; i < 5; i++) CHECK_EQ(has[i], parts[i] == part);
        CHECK(r.hidden.n == (part == "r1" ? 1024 : 0) && r.ffn.n == (part == "r4" ? 3072 : 0));
        CHECK(r.head.n == (part == "r2" || part == "r3" ? 128 : 0) && r.heads.n == (part == "heads" ? 2048 : 0));
        CHECK_EQ(r.rest, part == "r1" && sizeof(floatX) == 2);
    }
    CHECK(!rotation_for(parse({"--rotate"}), config_official("30b-a3b")).rest);  // a mixture's stream has none
    for (uint64_t seed : {0, 7})
        for (bool learned : {false, true}) {  // learning begins from the whole width
            const std::string text = std::to_string(seed);
            const Rotation r = rotation_of({learned ? "--learn-rotation" : "--rotate", "--rotate-block", "64", "--seed", text.c_str()});
            CHECK(r.hidden.n == (learned ? 1024 : 64) && r.ffn.n == 64 && r.rest == (sizeof(floatX) == 2));
            std::vector<float> signs(c.C);
            CHECK(r.signs.n == signs.size() && r.seed == seed);
            copy(signs.data(), r.signs.data, signs.size());
            PythonRandom random(seed);
            for (float sign : signs) CHECK_EQ(sign, random.getrandbits(1) ? 1 : -1);
        }
}
