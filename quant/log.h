// log.h: what the log says of the modules that were quantized.
//
// defines: module_text, print_modules, print_summary
#pragma once
#include <algorithm>
#include <cstdio>
#include "quant.cuh"

inline std::string module_text(const ModuleReport& r) {
    std::string text = format("layer %2d  %-9s  %s error %.4f", r.layer, r.module.c_str(), r.error_kind.c_str(), r.error);
    for (const auto& value : r.values) text += format("  %s %.4g", value.first.c_str(), value.second);
    return text + format("  %.1f s%s", r.seconds, r.note.empty() ? "" : ("  " + r.note).c_str());
}

inline void print_modules(const std::vector<ModuleReport>& reports, size_t first) {
    for (size_t i = first; i < reports.size(); i++) fprintf(stderr, "%s\n", module_text(reports[i]).c_str());
}

// At the end: the five modules that lost most, and everything that was not nominal.
inline void print_summary(std::vector<ModuleReport> reports) {
    if (reports.empty()) return;
    std::vector<const ModuleReport*> off;
    for (const ModuleReport& r : reports)
        if (!r.note.empty()) off.push_back(&r);
    fprintf(stderr, "%zu of %zu modules were not nominal%s\n", off.size(), reports.size(), off.empty() ? "" : ":");
    for (const ModuleReport* r : off) fprintf(stderr, "  %s\n", module_text(*r).c_str());
    std::stable_sort(reports.begin(), reports.end(),
                     [](const ModuleReport& a, const ModuleReport& b) { return a.error > b.error; });
    fprintf(stderr, "largest errors (0.1: a tenth of the %s's norm is noise):\n", reports[0].error_kind.c_str());
    for (size_t i = 0; i < std::min<size_t>(5, reports.size()); i++) fprintf(stderr, "  %s\n", module_text(reports[i]).c_str());
}
