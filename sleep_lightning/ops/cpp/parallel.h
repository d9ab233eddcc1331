// Parallel loops with a workspace per thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "vector.h"

namespace {

// One thread's workspace, reused across calls.
struct Buffer {
    float* data = nullptr;
    Index size = 0;
    ~Buffer() { std::free(data); }
    float* reserve(Index n) {
        if (n > size) {
            std::free(data);
            size = 0;
            data = static_cast<float*>(std::aligned_alloc(64, round_up(n * sizeof(float), 64)));
            if (!data) throw std::bad_alloc();
            size = n;
        }
        return data;
    }
};

// Runs work(i, workspace) for every i < n, each on one thread: results do not depend on the number of threads.
template <class F>
void share(Index n, Index threads, Index workspace, F work) {
    const int team = n == 1 ? 1 : int(threads);  // a team smaller than torch's would be destroyed and recreated
#pragma omp parallel num_threads(team)
    {
        thread_local Buffer buffer;
        float* base = buffer.reserve(workspace);
#pragma omp for schedule(dynamic)
        for (Index i = 0; i < n; i++) work(i, base);
    }
}

// The same for work(i, next, workspace), where next is this thread's index after i; n if there is none or it is unknown.
template <class F>
void share_in_turn(Index n, Index threads, Index workspace, F work) {
    const int team = n == 1 ? 1 : int(threads);
    std::atomic<Index> taken{0};
#pragma omp parallel num_threads(team)
    {
        thread_local Buffer buffer;
        float* base = buffer.reserve(workspace);
        for (Index i = taken++; i < n;) {
            const bool many = taken + team <= n;  // the last ones go to whichever thread is free
            const Index next = many ? std::min(n, Index(taken++)) : n;
            work(i, next, base);
            i = many ? next : Index(taken++);
        }
    }
}

}  // namespace
