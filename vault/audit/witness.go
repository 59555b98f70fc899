package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Why the validity of a release depends on the vault's clock alone: between the witness's times there is one at which the grant would not have permitted it.
const (
	ReasonExpires   = "expires"    // the grant may have ended before
	ReasonNotBefore = "not_before" // the grant may not have begun
	ReasonLimit     = "limit"      // it may have been on another day, whose limit was used up
)

// A bound is a tree that witnesses saw: what is in it was logged before newest, and what is not in it later than oldest, but for the time that a publication takes.
type bound struct {
	size   uint64
	newest time.Time // as many witnesses as are needed had seen the tree by then
	oldest time.Time // and as many said at this time or later that there was nothing more
}

// WitnessedPath is the name of an older checkpoint that witnesses cosigned.
func WitnessedPath(n int64) string { return "witnessed/" + number(n, TileWidth) }

// Witnessed is an older checkpoint that witnesses cosigned.
func (f Folder) Witnessed(_ context.Context, n int64) ([]byte, error) {
	return f.read(WitnessedPath(n), maxNote)
}

// Witnessed is an older checkpoint that witnesses cosigned.
func (u *URL) Witnessed(ctx context.Context, n int64) ([]byte, error) {
	return u.get(ctx, WitnessedPath(n), maxNote)
}

// bounds are the trees that the demanded witnesses saw, by size. Each must be a beginning of this log, or the vault signed two histories.
func (l *Log) bounds(ctx context.Context) (out []bound, err error) {
	if len(l.Witnesses.Of) == 0 {
		return nil, nil
	}
	add := func(file, text string) error {
		p, err := evidence.OpenPublished(text, l.Document, evidence.Witnesses{Of: l.Witnesses.Of})
		if err != nil {
			return &DamageError{File: file, Index: -1, Err: err}
		}
		n := max(1, l.Witnesses.Need)
		if len(p.Witnesses) < n || p.Size > l.Checkpoint.Size { // of others, or newer than the checkpoint that was read first
			return nil
		}
		if err := l.Consistent(ctx, text); err != nil {
			if d := (*DamageError)(nil); errors.As(err, &d) && d.File == checkpointName {
				return &DamageError{File: file, Index: -1, Err: d.Err}
			}
			return err
		}
		slices.SortFunc(p.Witnesses, func(a, b evidence.Cosigned) int { return a.At.Compare(b.At) })
		out = append(out, bound{p.Size, p.Witnesses[n-1].At, p.Witnesses[len(p.Witnesses)-n].At})
		return nil
	}
	if s, ok := l.Source.(interface {
		Witnessed(ctx context.Context, n int64) ([]byte, error)
	}); ok {
		for n := int64(0); ; n++ {
			text, err := s.Witnessed(ctx, n)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", WitnessedPath(n), err)
			}
			if err := add(WitnessedPath(n), string(text)); err != nil {
				return nil, err
			}
		}
	}
	if err := add(checkpointName, l.Note); err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b bound) int { return int(min(1, max(-1, int64(a.size)-int64(b.size)))) })
	for i := len(out) - 2; i >= 0; i-- { // what is in a tree is in all larger ones, which somebody may have seen earlier
		if out[i+1].newest.Before(out[i].newest) {
			out[i].newest = out[i+1].newest
		}
	}
	return out, nil
}

// window is when an entry was logged, by the witnesses; zero where they do not say.
type window struct{ after, before time.Time }

// windows gives the window of one entry after the other, in the order of the log.
type windows struct {
	bounds []bound
	after  time.Time
}

func (w *windows) of(index uint64) window {
	for len(w.bounds) > 0 && w.bounds[0].size <= index {
		if w.bounds[0].oldest.After(w.after) {
			w.after = w.bounds[0].oldest
		}
		w.bounds = w.bounds[1:]
	}
	out := window{after: w.after}
	if len(w.bounds) > 0 {
		out.before = w.bounds[0].newest
	}
	return out
}

// dated holds the time of an entry against what the witnesses say. A publication lags by half a minute at most, or its cosignature is not used, and clocks differ
// by as much: a minute in all.
func (v *verdict) dated(r *Record, w window) {
	if !w.after.IsZero() && r.Time.Before(w.after.Add(-latestEntry)) {
		v.fault(ReasonTime, "logged at %s by the vault's clock, and witnesses saw the log without it at %s", r.Time.Format(timeFormat), w.after.Format(timeFormat))
	}
	if !w.before.IsZero() && r.Time.After(w.before.Add(policies.ClockSkew)) {
		v.fault(ReasonTime, "logged at %s by the vault's clock, and witnesses saw it at %s", r.Time.Format(timeFormat), w.before.Format(timeFormat))
	}
}

// bounded notes what of a grant does not hold for the whole window.
func (v *verdict) bounded(g *policies.Grant, w window) {
	from, to := w.after.Add(-latestEntry), w.before.Add(policies.ClockSkew)
	low, high := "a time that nobody bounds", "a time that nobody bounds"
	if !w.after.IsZero() {
		low = from.Format(timeFormat)
	}
	if !w.before.IsZero() {
		high = to.Format(timeFormat)
	}
	note := func(code, format string, args ...any) {
		v.unbounded = append(v.unbounded, reason(code, "logged between %s and %s, "+format, append([]any{low, high}, args...)...))
	}
	if w.before.IsZero() || to.Unix() >= g.Expires {
		note(ReasonExpires, "granted until %s", unix(g.Expires))
	}
	if w.after.IsZero() || from.Unix() < g.NotBefore {
		note(ReasonNotBefore, "granted from %s", unix(g.NotBefore))
	}
	if g.Limits.ReadsPerDay != 0 && (w.before.IsZero() || w.after.IsZero() || dayOf(from) != dayOf(to)) {
		note(ReasonLimit, "of at most %d a day", g.Limits.ReadsPerDay)
	}
}
