// paths.h: where things are.
//
// defines: project_file, base_name
#pragma once
#include <string>
#include <unistd.h>
#include "file.h"

// A file of the project, from wherever the program is run: under the current folder, else beside the program.
inline std::string project_file(const std::string& path) {
    if (file_exists(path) || is_directory(path)) return path;
    char exe[4096];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return path;
    const std::string beside = std::string(exe, (size_t)n);
    const std::string candidate = beside.substr(0, beside.rfind('/') + 1) + path;
    return file_exists(candidate) || is_directory(candidate) ? candidate : path;
}

inline std::string base_name(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    return path.substr(path.rfind('/') + 1);
}
