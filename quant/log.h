// log.h: what the log says of the modules that were quantized.
//
// defines: module_text, module_family, print_modules, print_summary
#pragma once
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include "quant.cuh"

inline std::string module_text(const ModuleReport& r) {
    std::string text = format("layer %2d  %-9s  %s error %.4f", r.layer, r.module.c_str(), r.error_kind.c_str(), r.error);
    for (const auto& value : r.values) text += format("  %s %.4g", value.first.c_str(), value.second);
    return text + format("  %.1f s%s", r.seconds, r.note.empty() ? "" : ("  " + r.note).c_str());
}

// "experts.7.gate_proj" is one of many and goes by "experts gate_proj"; others have lines of their own.
inline std::string module_family(const std::string& module) {
    return module.rfind("experts.", 0) == 0 ? "experts " + module.substr(module.rfind('.') + 1) : "";
}

// A line a module, but one for all experts' of a kind.
inline void print_modules(const std::vector<ModuleReport>& reports, size_t first) {
    struct Family {
        double sum = 0, seconds = 0;
        size_t n = 0, starved = 0;
        const ModuleReport* worst = nullptr;
    };
    std::map<std::pair<std::string, std::string>, Family> families;  // by name and kind of error, whose means say different things
    for (size_t i = first; i < reports.size(); i++) {
        const ModuleReport& r = reports[i];
        const std::string family = module_family(r.module);
        if (family.empty()) {
            fprintf(stderr, "%s\n", module_text(r).c_str());
            continue;
        }
        Family& f = families[{family, r.error_kind}];
        f.sum += r.error, f.seconds += r.seconds, f.n++, f.starved += r.starved;
        if (!f.worst || r.error > f.worst->error) f.worst = &r;
    }
    for (const auto& [name, f] : families) {
        fprintf(stderr, "layer %2d  %zu %s  %s error %.4f on average, %.4f of %s  %.1f s", f.worst->layer, f.n, name.first.c_str(),
                name.second.c_str(), f.sum / f.n, f.worst->error, f.worst->module.c_str(), f.seconds);
        if (f.starved) fprintf(stderr, "  %zu with too few tokens", f.starved);
        fprintf(stderr, "\n");
    }
}

static constexpr size_t MOST_LISTED = 40;

// At the end: the five modules that lost most, and everything that was not nominal.
inline void print_summary(std::vector<ModuleReport> reports) {
    if (reports.empty()) return;
    std::vector<const ModuleReport*> off;
    size_t starved = 0;
    for (const ModuleReport& r : reports) {
        if (!r.note.empty()) off.push_back(&r);
        starved += r.starved;
    }
    fprintf(stderr, "%zu of %zu modules were not nominal%s\n", off.size(), reports.size(), off.empty() ? "" : ":");
    for (size_t i = 0; i < std::min(off.size(), MOST_LISTED); i++) fprintf(stderr, "  %s\n", module_text(*off[i]).c_str());
    if (off.size() > MOST_LISTED) fprintf(stderr, "  and %zu more, which --json lists\n", off.size() - MOST_LISTED);
    if (starved) fprintf(stderr, "%zu modules of experts had too few calibration tokens: their notes say what was done\n", starved);
    std::stable_sort(reports.begin(), reports.end(),
                     [](const ModuleReport& a, const ModuleReport& b) { return a.error > b.error; });
    fprintf(stderr, "largest errors (0.1: a tenth of the %s's norm is noise):\n", reports[0].error_kind.c_str());
    for (size_t i = 0; i < std::min<size_t>(5, reports.size()); i++) fprintf(stderr, "  %s\n", module_text(reports[i]).c_str());
}
