// The gated delta rule on CPU, forward and backward, chunk by chunk in WY form. No torch headers: raw pointers,
// strides in elements. The maths is that of chunked.py; one thread owns a head from its first chunk to its last,
// so results do not depend on the number of threads.
//
// Per chunk of C tokens that starts from state S, with G = cumsum(g), D_ti = exp(G_t - G_i) for i <= t,
// B_ti = D_ti k_t.k_i for i < t, P = D * (Q K^T), Q already scaled:
//   E_t = v_t - e^{G_t} S^T k_t - sum_{i<t} B_ti U_i,   U_t = b_t E_t       forward substitution, no inverse
//   O_t = e^{G_t} S^T q_t + sum_{i<=t} P_ti U_i,        S' = e^{G_C} S + sum_t k_t (e^{G_C - G_t} U_t)^T
// and backwards, with dS' given:
//   dR_t = e^{G_C - G_t} dS'^T k_t + sum_{i>=t} P_it dO_i - sum_{i>t} B_it W_i,   W_t = b_t dR_t = dV_t
//   db_t = dR_t.E_t, so E is what the forward saves.
//
// Suffixes name the layout: _CK is a row-major [C, K]; _pCV is cut into column panels, each a row-major
// [C, panel width], so that a panel of 128 rows stays in L1 without set conflicts. C is padded to Cl, K to Kp and V to
// Vp, multiples of the vector length, with zeros: a padded token has beta = 0 and g = 0 and changes nothing.
#include "delta_rule_backward.h"
#include "delta_rule_forward.h"
#include "parallel.h"

extern "C" {

void gated_delta_rule_forward(const Args* a) {
    const Index workspace = ForwardHead(*a, 0, 0, nullptr).used;
    share_in_turn(a->B * a->H, a->threads, workspace,
                  [=](Index n, Index next, float* base) { ForwardHead(*a, n, next, base).forward(); });
}

void gated_delta_rule_backward(const Args* a) {
    const Index workspace = BackwardHead(*a, 0, 0, nullptr).used;
    share_in_turn(a->B * a->H, a->threads, workspace,
                  [=](Index n, Index next, float* base) { BackwardHead(*a, n, next, base).backward(); });
}
}
