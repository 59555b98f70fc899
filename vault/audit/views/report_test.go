package views

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func (w *world) report(t *testing.T, q Query) string {
	t.Helper()
	x := openIndex(t, t.TempDir())
	if _, _, err := x.Update(t.Context(), w.open(t)); err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := Report(t.Context(), &page, x, w.open(t), q); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

func TestReport(t *testing.T) {
	w := populate(1000)
	w.readers[0].Name = ""
	page := w.report(t, Query{})
	for _, b := range w.readers {
		if strings.Count(page, b.ID.String()) != 1 {
			t.Errorf("%s has no part of its own", b)
		}
	}
	for _, bad := range []string{"<script", "http://", "https://", "src=", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if page != w.report(t, Query{}) {
		t.Error("two reports on one log differ")
	}
	if later := w.report(t, Query{From: start.Add(1000 * time.Hour)}); !strings.Contains(later, "Nobody read") {
		t.Error("a report on a time without entries")
	}
}

// TestReportEscapes: a business may call itself what it likes.
func TestReportEscapes(t *testing.T) {
	w := populateAs(40, `<img src=x onerror="alert(1)">`)
	if page := w.report(t, Query{}); strings.Contains(page, "<img") || !strings.Contains(page, "&lt;img") {
		t.Error("a name became a part of the page")
	}
}

func TestTimeline(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 34, 56, 0, time.UTC)
	for _, c := range []struct {
		span  time.Duration
		name  string
		bins  int
		begin string
	}{
		{0, "a minute", 1, "2026-03-01 12:34"},
		{time.Hour, "a minute", 61, "2026-03-01 12:34"},
		{5 * time.Hour, "an hour", 6, "2026-03-01 12:00"},
		{20 * 24 * time.Hour, "a day", 21, "2026-03-01"},
		{365 * 24 * time.Hour, "2 days", 183, "2026-03-01"},
	} {
		got := newTimeline(at, at.Add(c.span))
		if got.name != c.name || got.bins != c.bins || got.begin.Format(got.layout) != c.begin {
			t.Errorf("%s: %s, %d, %s", c.span, got.name, got.bins, got.begin.Format(got.layout))
		}
	}
}
