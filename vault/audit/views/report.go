package views

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

//go:embed report.html
var reportText string

// The page may load nothing and run nothing: all of it is in the file.
var reportPage = template.Must(template.New("report").Parse(reportText))

// reportEvents is how many of a business's newest entries a report tells in words.
const reportEvents = 25

// maxBins is how many bars a timeline has at most.
const maxBins = 240

// A lane is one kind of thing in a timeline.
type lane struct {
	Name, Class string
	is          func(c *Count) bool
}

var lanes = []lane{
	{"grants", "grant", func(c *Count) bool { return c.Kind == evidence.EntryGrant }},
	{"revocations", "revocation", func(c *Count) bool { return c.Kind == evidence.EntryRevocation || c.Kind == evidence.EntryGivenUp }},
	{"reads", "read", func(c *Count) bool { return c.Kind == evidence.EntryUse }},
	{"refusals", "refusal", func(c *Count) bool { return c.Kind == evidence.EntryRefusal }},
}

// business is a reader's part of a report.
type business struct {
	Party                               Party
	Grants, Revocations, Reads, Refused uint64
	Last                                string // of the newest read
	Lanes                               []drawn
	Events                              []event
}

type drawn struct {
	lane
	Y     int
	Total uint64
	Bars  []bar
}

type bar struct {
	X, Y, Width, Height float64
	Count               uint64
	Time                string
}

type event struct {
	Index uint64
	Time  string
	Text  string
	Class string
}

type report struct {
	Log           string
	Size          uint64
	Root          string
	From, To      string
	Unit          string
	Businesses    []business
	Width, Height int
	Begin, End    string
	Shown         int
}

// The timeline's picture, in pixels.
const (
	pictureWidth = 880
	labelWidth   = 110
	laneHeight   = 34
	laneGap      = 6
)

// Report writes one page of HTML about who read what: for each reader a timeline of grants, revocations, reads and refusals, and its newest entries in words, each of which
// was proven to be in the log. The page needs no network and runs no script. Of the query, From and To count. The same log gives the same page.
func Report(ctx context.Context, w io.Writer, x *Index, log *audit.Log, q Query) error {
	q = Query{From: q.From, To: q.To}
	first, end, err := x.span(q)
	if err != nil {
		return err
	}
	page := report{Log: log.Document.LogKey.Name, Size: log.Checkpoint.Size, Root: log.Checkpoint.Root.String(), Width: pictureWidth, Height: len(lanes) * (laneHeight + laneGap), Shown: reportEvents}
	if first >= end {
		return reportPage.Execute(w, page)
	}
	buf := timeBuffer()
	oldest, err := x.time(first, buf)
	if err != nil {
		return err
	}
	newest, err := x.time(end-1, buf)
	if err != nil {
		return err
	}
	page.From, page.To = oldest.Format("2006-01-02 15:04:05"), newest.Format("2006-01-02 15:04:05")
	t := newTimeline(oldest, newest)
	page.Unit, page.Begin, page.End = t.name, t.begin.Format(t.layout), t.begin.Add(time.Duration(t.bins)*t.width).Format(t.layout)
	readers, err := x.Count(q, ByReader)
	if err != nil {
		return err
	}
	for _, r := range readers {
		if r.Reader.Pseudonym.IsZero() {
			continue
		}
		b, err := reportOn(ctx, x, log, q, r.Reader, t)
		if err != nil {
			return err
		}
		page.Businesses = append(page.Businesses, b)
	}
	slices.SortFunc(page.Businesses, func(a, b business) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Party.Name), strings.ToLower(b.Party.Name)), cmp.Compare(a.Party.Pseudonym.String(), b.Party.Pseudonym.String()))
	})
	return reportPage.Execute(w, page)
}

// A timeline divides a span into bars of minutes, hours or days, or several of them, so that there are not too many.
type timeline struct {
	by     By
	begin  time.Time
	width  time.Duration // of a bar
	bins   int
	name   string
	layout string
}

func newTimeline(oldest, newest time.Time) timeline {
	for _, step := range []struct {
		by     By
		unit   time.Duration
		layout string
		name   string
	}{{ByMinute, time.Minute, "2006-01-02 15:04", "a minute"}, {ByHour, time.Hour, "2006-01-02 15:04", "an hour"}, {ByDay, 24 * time.Hour, time.DateOnly, "a day"}} {
		t := timeline{by: step.by, begin: oldest.Truncate(step.unit), width: step.unit, layout: step.layout, name: step.name}
		units := int(newest.Sub(t.begin)/step.unit) + 1
		if units > maxBins && step.by != ByDay {
			continue
		}
		each := (units + maxBins - 1) / maxBins
		t.width *= time.Duration(each)
		if t.bins = (units + each - 1) / each; each > 1 {
			t.name = fmt.Sprintf("%d days", each)
		}
		return t
	}
	panic("unreachable: days take whatever there is")
}

func reportOn(ctx context.Context, x *Index, log *audit.Log, q Query, reader Party, t timeline) (business, error) {
	b := business{Party: reader}
	q.Reader = reader.Pseudonym
	counts, err := x.Count(q, t.by, ByKind)
	if err != nil {
		return b, err
	}
	for i, lane := range lanes {
		d := drawn{lane: lane, Y: i * (laneHeight + laneGap)}
		bins := make([]uint64, t.bins)
		for j := range counts {
			if !lane.is(&counts[j]) {
				continue
			}
			at, err := time.Parse(units[t.by].layout, counts[j].Time)
			if err != nil {
				return b, fmt.Errorf("%w: %w", ErrIndex, err)
			}
			bins[min(max(int(at.Sub(t.begin)/t.width), 0), t.bins-1)] += counts[j].Entries
			d.Total += counts[j].Entries
		}
		most := max(slices.Max(bins), 1)
		for j, n := range bins {
			if n == 0 {
				continue
			}
			width := float64(pictureWidth-labelWidth) / float64(t.bins)
			height := 4 + float64(laneHeight-4)*float64(n)/float64(most)
			d.Bars = append(d.Bars, bar{
				X: labelWidth + float64(j)*width, Y: float64(d.Y) + laneHeight - height, Width: max(min(width-1, 24), 1.5), Height: height, Count: n,
				Time: t.begin.Add(time.Duration(j) * t.width).Format(t.layout),
			})
		}
		b.Lanes = append(b.Lanes, d)
	}
	b.Grants, b.Revocations, b.Reads, b.Refused = b.Lanes[0].Total, b.Lanes[1].Total, b.Lanes[2].Total, b.Lanes[3].Total
	q.Kinds, q.Limit = []evidence.Kind{evidence.EntryUse}, 1
	q.Outcomes = []policies.Code{policies.CodeReleased}
	rows, _, err := x.Search(q)
	if err != nil {
		return b, err
	}
	if len(rows) > 0 {
		b.Last = rows[0].Time.Format("2006-01-02 15:04:05")
	}
	q.Kinds = []evidence.Kind{evidence.EntryGrant, evidence.EntryRevocation, evidence.EntryGivenUp, evidence.EntryUse, evidence.EntryRefusal, evidence.EntryFailed, evidence.EntryRefusals}
	q.Outcomes, q.Limit = nil, reportEvents
	if rows, _, err = x.Search(q); err != nil {
		return b, err
	}
	for _, row := range rows {
		r, err := log.Include(ctx, row.Index)
		if err != nil {
			return b, err
		}
		text, err := Sentence(r, x.Party)
		if err != nil {
			return b, err
		}
		e := event{Index: r.Index, Time: r.Time.Format("2006-01-02 15:04:05.000"), Text: text}
		for _, lane := range lanes {
			if lane.is(&Count{Kind: r.Entry.Kind}) {
				e.Class = lane.Class
			}
		}
		b.Events = append(b.Events, e)
	}
	return b, nil
}
