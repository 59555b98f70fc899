package main

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/vault/audit/reconcile"
)

// A report in which lines of the record were mixed is told neither as clean nor as a disagreement.
func TestTellReconcile(t *testing.T) {
	mixed := reconcile.Finding{What: reconcile.Mixed, Place: "lines 7 to 31", Reason: "2 calls were under way side by side"}
	lost := reconcile.Finding{What: reconcile.Unlogged, Class: reconcile.Derive, Place: "line 90, call 8", Reason: "no entry"}
	for _, row := range []struct {
		findings []reconcile.Finding
		want     []string
		not      string
	}{
		{nil, []string{"Nothing is left over"}, "mixed"},
		{[]reconcile.Finding{mixed}, []string{"NOT ALL COMPARED", "not comparable: mixed lines\n    lines 7 to 31", "3 operations of which mixed lines"}, "LEFT OVER"},
		{[]reconcile.Finding{mixed, lost}, []string{"LEFT OVER", "operation without an entry: derive\n    line 90", "lines 7 to 31"}, "NOT ALL"},
	} {
		r := &reconcile.Report{Clean: len(row.findings) == 0, Findings: row.findings, Counts: map[string]uint64{}}
		for _, f := range row.findings {
			r.Counts[f.What]++
			r.Rows = []reconcile.Row{{Class: reconcile.Derive, Operations: 9, Mixed: 3}}
		}
		var out strings.Builder
		tell(&out, r)
		for _, want := range row.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing:\n%s", want, &out)
			}
		}
		if strings.Contains(out.String(), row.not) {
			t.Errorf("%q is told:\n%s", row.not, &out)
		}
	}
}
