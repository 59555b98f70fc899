package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

func (m memory) Witnessed(_ context.Context, n int64) ([]byte, error) { return m.get(WitnessedPath(n)) }

func witnessKey(n byte) *evidence.CosignerKey {
	return must(evidence.NewEd25519CosignerKey(fmt.Sprint("witness.example/w", n), &[32]byte{n}))
}

// seen is a published checkpoint that witnesses cosigned at some times.
func (l *testLog) seen(size int, times map[byte]time.Time) []byte {
	text := l.checkpoint(size)
	for n, at := range times {
		text += must(witnessKey(n).Cosign(l.doc.LogKey.Name, evidence.Checkpoint{Size: uint64(size), Root: l.root(size)}, at))
	}
	return []byte(text)
}

func demand(need int, of ...byte) (w evidence.Witnesses) {
	for _, n := range of {
		w.Of = append(w.Of, witnessKey(n).Cosigner())
	}
	w.Need = need
	return w
}

func at(seconds int) time.Time { return testTime.Add(time.Duration(seconds) * time.Second) }

func TestOpenWitnessed(t *testing.T) {
	l := newLog(newVault(1)).fill(300)
	files := l.files()
	files[checkpointName] = l.seen(300, map[byte]time.Time{1: at(1), 2: at(2)})
	files[WitnessedPath(0)] = l.seen(7, map[byte]time.Time{1: at(1)})
	files[WitnessedPath(1)] = l.seen(100, map[byte]time.Time{2: at(1), 3: at(1)})
	for _, c := range []struct {
		rule evidence.Witnesses
		want error
	}{
		{demand(0), nil}, {demand(1, 1), nil}, {demand(2, 1, 2), nil}, {demand(2, 1, 2, 3), nil}, {demand(0, 3), nil},
		{demand(1, 3), policies.ErrSignature}, {demand(3, 1, 2, 3), policies.ErrSignature}, {demand(2, 2, 2), policies.ErrMalformed},
	} {
		log, err := OpenWitnessed(t.Context(), files, l.doc, c.rule)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%d of %d: %v, want %v", c.rule.Need, len(c.rule.Of), err, c.want)
		}
		if err == nil {
			must(log.Verify(t.Context()))
		}
	}
	// One that witnesses saw and that is no beginning of this log: the vault signed two histories.
	fork := l.fork(50)
	fork.add(at(100), evidence.Entry{Kind: evidence.EntryStop}, &evidence.Details{}, nil)
	fork.fill(120)
	files[WitnessedPath(1)] = fork.seen(100, map[byte]time.Time{1: at(1)})
	log := must(OpenWitnessed(t.Context(), files, l.doc, demand(1, 1, 2)))
	var d *DamageError
	if _, err := log.Verify(t.Context()); !errors.As(err, &d) || d.File != WitnessedPath(1) || !strings.Contains(err.Error(), "forked") {
		t.Errorf("a fork that a witness saw: %v", err)
	}
	if _, err := log.Recheck(t.Context(), Range{}); !errors.As(err, &d) || d.File != WitnessedPath(1) {
		t.Errorf("a fork that a witness saw: %v", err)
	}
	files[WitnessedPath(1)] = []byte("garbage")
	if _, err := log.Verify(t.Context()); !errors.As(err, &d) || d.File != WitnessedPath(1) {
		t.Errorf("garbage: %v", err)
	}
}

func TestWindows(t *testing.T) {
	l := newLog(newVault(1)).fill(300)
	files := l.files()
	files[WitnessedPath(0)] = l.seen(100, map[byte]time.Time{1: at(10), 2: at(12), 3: at(11)})
	files[WitnessedPath(1)] = l.seen(200, map[byte]time.Time{1: at(30), 2: at(20)})
	files[checkpointName] = l.seen(300, map[byte]time.Time{1: at(40), 2: at(41), 3: at(19)})
	for _, c := range []struct {
		rule  evidence.Witnesses
		index uint64
		want  window
	}{
		{demand(1, 1), 0, window{before: at(10)}},
		{demand(1, 1), 99, window{before: at(10)}},
		{demand(1, 1), 100, window{at(10), at(30)}},
		{demand(1, 1), 200, window{at(30), at(40)}},
		{demand(1, 1, 2, 3), 0, window{before: at(10)}},
		{demand(2, 1, 2, 3), 0, window{before: at(11)}},
		{demand(3, 1, 2, 3), 0, window{before: at(12)}},
		{demand(1, 1, 2, 3), 150, window{at(12), at(19)}}, // the third saw the larger tree before the others saw the smaller
		{demand(2, 1, 2, 3), 150, window{at(11), at(30)}},
		{demand(3, 1, 2, 3), 150, window{at(10), at(41)}}, // the second note has two of them only
		{demand(2, 1, 2, 3), 299, window{at(20), at(40)}},
		{demand(0), 5, window{}},
	} {
		log := must(OpenWitnessed(t.Context(), files, l.doc, c.rule))
		w := windows{bounds: must(log.bounds(t.Context()))}
		var got window
		for i := uint64(0); i <= c.index; i++ {
			got = w.of(i)
		}
		if !got.after.Equal(c.want.after) || !got.before.Equal(c.want.before) {
			t.Errorf("%d of %d, entry %d: %v, want %v", c.rule.Need, len(c.rule.Of), c.index, got, c.want)
		}
	}
}

// TestTimes: a vault whose clock is wrong, or that writes entries under times that were, and a witness whose clock is right.
func TestTimes(t *testing.T) {
	for name, c := range map[string]struct {
		limit   uint64
		ahead   time.Duration // of the witness before the vault
		witness bool          // a witness is asked for
		kept    bool          // and saw the log before the release
		want    []string      // reasons for which the release is unjustified
		depends []string      // or on which it depends
		expires time.Duration // of the grant, after the release
	}{
		"without a witness":              {expires: time.Hour, depends: []string{ReasonExpires, ReasonNotBefore}},
		"without a witness, a limit":     {limit: 5, expires: time.Hour, depends: []string{ReasonExpires, ReasonLimit, ReasonNotBefore}},
		"between two":                    {witness: true, kept: true, expires: time.Hour},
		"between two, a limit":           {limit: 5, witness: true, kept: true, expires: time.Hour},
		"under the first":                {witness: true, expires: time.Hour, depends: []string{ReasonNotBefore}},
		"near the end of the grant":      {witness: true, kept: true, expires: 30 * time.Second, depends: []string{ReasonExpires}},
		"half a minute is no backdating": {witness: true, kept: true, expires: time.Hour, ahead: 30 * time.Second},
		"backdated":                      {witness: true, kept: true, expires: time.Hour, ahead: 2 * time.Hour, want: []string{ReasonTime}},
		"postdated":                      {witness: true, kept: true, expires: time.Hour, ahead: -2 * time.Hour, want: []string{ReasonTime}},
		"backdated, without a witness":   {expires: time.Hour, ahead: 2 * time.Hour, depends: []string{ReasonExpires, ReasonNotBefore}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			o, r := w.enrol(), w.enrol()
			o.publish(nil)
			g := o.grant(r, o.key, func(g *policies.Grant) {
				g.NotBefore, g.Expires, g.Limits.ReadsPerDay = w.now.Unix()-600, w.now.Add(c.expires).Unix(), c.limit
			}, "name")
			s := r.open(r.key, nil)
			before := len(w.leaves)
			seenAt := w.now.Add(c.ahead)
			release, _ := s.read(o, g, "name", nil)
			files := w.files()
			files[checkpointName] = w.seen(len(w.leaves), map[byte]time.Time{1: w.now.Add(c.ahead + time.Second)})
			if c.kept {
				files[WitnessedPath(0)] = w.seen(before, map[byte]time.Time{1: seenAt})
			}
			rule := evidence.Witnesses{}
			if c.witness {
				rule = demand(1, 1)
			}
			report := must(must(OpenWitnessed(t.Context(), files, w.doc, rule)).Recheck(t.Context(), Range{}))
			codes := func(f Findings) (out []string) {
				for _, x := range f.Listed {
					if x.Index != release {
						t.Errorf("entry %d is listed", x.Index)
					}
					for _, r := range x.Reasons {
						if !slices.Contains(out, r.Code) {
							out = append(out, r.Code)
						}
					}
				}
				slices.Sort(out)
				return out
			}
			if got := codes(report.Unjustified); !slices.Equal(got, c.want) {
				t.Errorf("unjustified for %v, want %v: %s", got, c.want, report.Bytes())
			}
			if got := codes(report.Unbounded); !slices.Equal(got, c.depends) {
				t.Errorf("depends on %v, want %v: %s", got, c.depends, report.Bytes())
			}
		})
	}
}
