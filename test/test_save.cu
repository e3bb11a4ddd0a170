// Tests of data/save.h, data/paths.h and data/token_ids.h: a saved checkpoint's config.json and small files, where reports may go.
#include "../data/save.h"
#include "../data/token_ids.h"
#include "temp.h"
#include "test.h"

// config.json as it is saved, of one with this text.
static std::string saved_config_of(const std::string& text) {
    TempFolder tmp;
    write_bytes(tmp / "config.json", text);
    return saved_config(tmp.path, "bfloat16", false);
}

TEST(the_saved_config_differs_in_its_dtype_alone) {
    CHECK_EQ(saved_config_of("{\"torch_dtype\": null, \"vocab_size\": 2048, \"eps\": 1.0e-06, \"big\": 12345678901234567890}"),
             "{\n  \"torch_dtype\": \"bfloat16\",\n  \"vocab_size\": 2048,\n  \"eps\": 1.0e-06,\n  \"big\": 12345678901234567890\n}\n");
    CHECK_EQ(saved_config_of("{\"a\":[{\"dtype\":\"int4\"},[],{}],\"dtype\":\"float16\",\"z\":\"\\\"dtype\\\": 1\"}"),
             "{\n  \"a\": [\n    {\n      \"dtype\": \"int4\"\n    },\n    [],\n    {}\n  ],\n  \"dtype\": \"bfloat16\",\n"
             "  \"z\": \"\\\"dtype\\\": 1\"\n}\n");
    CHECK_EQ(saved_config_of("{\"a\": 1, \"torch_dtype\": null}"), "{\n  \"a\": 1,\n  \"torch_dtype\": \"bfloat16\"\n}\n");
    CHECK_EQ(saved_config_of("{}"), "{\n  \"torch_dtype\": \"bfloat16\"\n}\n");
}

TEST(what_the_config_says_of_quantized_weights_is_not_saved) {
    CHECK_EQ(saved_config_of("{\"torch_dtype\": \"float16\", \"quantization_config\": {\"bits\": 4}, \"compression_config\": 1, \"b\": 2}"),
             "{\n  \"torch_dtype\": \"bfloat16\",\n  \"b\": 2\n}\n");
}

// All that stands beside weights goes along, through links too, as a hub's cache has them; nothing else does.
TEST(small_files_go_along) {
    TempFolder tmp;
    const std::string from = tmp / "from";
    std::filesystem::create_directories(from + "/onnx");
    for (const char* name : {"tokenizer.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "LICENSE", "tokenizer.model",
                             "config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf",
                             "quantize_config.json", "quantization.json", "adapter_config.json", "adapter_model.safetensors", ".gitattributes", "onnx/merges.txt"})
        write_bytes(from + "/" + name, name);
    std::filesystem::create_symlink("onnx/merges.txt", from + "/merges.txt");
    CHECK_EQ(mkfifo((from + "/fifo.json").c_str(), 0600), 0);
    {
        CheckpointWriter writer(tmp / "to", {{"x", "F32", {0}}});
        copy_small_files(writer, from);
        writer.finish();
    }
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(tmp / "to")) names.push_back(file.path().filename());
    std::sort(names.begin(), names.end());
    std::string all;
    for (const std::string& name : names) all += name + " ";
    CHECK_EQ(all, "LICENSE added_tokens.json chat_template.jinja merges.txt model.safetensors special_tokens_map.json tokenizer.json "
                  "tokenizer.model ");
    CHECK_EQ(read_bytes(tmp / "to/merges.txt"), "onnx/merges.txt");
}

TEST(a_report_that_can_not_be_written_is_refused_at_the_start) {
    TempFolder tmp;
    std::filesystem::create_directory(tmp / "folder");
    CHECK_ERROR(require_writable(tmp / "folder"), "found a folder");
    std::filesystem::create_symlink(tmp / "missing/report.json", tmp / "into_nowhere");
    CHECK_ERROR(require_writable(tmp / "into_nowhere"), "can't be written: No such file or directory");
    std::filesystem::create_symlink(tmp / "loop", tmp / "loop");
    CHECK_ERROR(require_writable(tmp / "loop"), "can't be written: Too many levels of symbolic links");
    std::filesystem::create_symlink(tmp / "folder/report.json", tmp / "link");
    require_writable(tmp / "link");
    write_whole_file(tmp / "link", "{}\n");
    CHECK_EQ(read_bytes(tmp / "folder/report.json"), "{}\n");
    CHECK(std::filesystem::is_symlink(tmp / "link"));
    require_writable(tmp / "report.json");
    CHECK(!file_exists(tmp / "report.json"));
}

TEST(a_report_does_not_replace_what_the_run_reads) {
    TempFolder tmp;
    write_bytes(tmp / "input", "1");
    write_bytes(tmp / "other", "1");
    std::filesystem::create_symlink(tmp / "input", tmp / "link");
    const MappedFile file(tmp / "input");
    for (const char* name : {"input", "link", "./input"})
        CHECK_ERROR(require_no_input(tmp / name), "found one that this run reads");
    require_no_input(tmp / "other");
    require_no_input(tmp / "new");
    require_no_input("/dev/null");
}

// What is open for writing is gone on with; what is open for reading alone is not.
TEST(a_file_that_is_written_to_already_is_not_cut_off) {
    TempFolder tmp;
    write_bytes(tmp / "log", "");
    const int log = open((tmp / "log").c_str(), O_WRONLY);
    CHECK_EQ(write(log, "row\n", 4), 4);
    CHECK(is_special_file(tmp / "log"));
    write_whole_file(tmp / "log", "{}\n");
    CHECK_EQ(write(log, "end\n", 4), 4);
    CHECK_EQ(read_bytes(tmp / "log"), "row\n{}\nend\n");
    close(log);
    const int reader = open((tmp / "log").c_str(), O_RDONLY);
    CHECK(!is_special_file(tmp / "log"));
    write_whole_file(tmp / "log", "{}\n");
    CHECK_EQ(read_bytes(tmp / "log"), "{}\n");
    close(reader);
}

TEST(names_are_printable) {
    TempFolder tmp;
    std::filesystem::create_directory(tmp / "a\x1b[31mb");
    CHECK_EQ(model_name(tmp / "a\x1b[31mb"), "a\\x1b[31mb");
}

TEST(paths_that_name_one_place) {
    TempFolder tmp;
    std::filesystem::create_directory(tmp / "folder");
    std::filesystem::create_directory_symlink("folder", tmp / "link");
    CHECK(same_place(tmp / "folder/new", tmp / "link/./new"));
    CHECK(same_place(tmp / "new/", tmp / "folder/../new"));
    CHECK(same_place("report.json", "./report.json"));
    CHECK(!same_place(tmp / "folder/new", tmp / "new"));
    CHECK(is_inside(tmp / "link/new/r.json", tmp / "folder") && is_inside(tmp / "new/r.json", tmp / "new/"));
    CHECK(!is_inside(tmp / "new.json", tmp / "new") && !is_inside(tmp / "new", tmp / "new") && !is_inside("r.json", tmp / "new"));
}

TEST(token_ids_are_read_strictly) {
    TempFolder tmp;
    auto ids = [&](const std::string& text) {
        write_bytes(tmp / "ids", text);
        const std::vector<int> read = read_token_ids(tmp / "ids", 100, 4);
        std::string all;
        for (int id : read) all += std::to_string(id) + " ";
        return all;
    };
    CHECK_EQ(ids("0\n99\r\n \n7"), "0 99 7 ");
    CHECK_EQ(ids("\xEF\xBB\xBF" "5\n"), "5 ");
    for (const char* bad : {"100", "-1", "+1", "1 2", "1.0", "0x1", "99999999999999999999", " 1", "x"})
        CHECK_ERROR(ids(std::string("\n1\n") + bad), "ids:3: expected a token id from 0 to 99, found \"");
    CHECK_ERROR(ids(std::string("1\n2\0\n", 5)), "ids:2: expected a token id");
    CHECK_ERROR(ids(" \n\n"), "found an empty file");
    CHECK_ERROR(ids("1\n2\n3\n4\n5\n"), "expected at most 4 token ids, found 5 lines");
}
