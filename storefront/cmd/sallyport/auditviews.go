package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
	"github.com/sallyport/sallyport/vault/audit/views"
)

// auditIndex is the log that a command works on, and the index that answers.
type auditIndex struct {
	auditLog
	Index string `help:"Folder of the index, which is made where there is none. It says who dealt with whom: keep it as you keep the log. Default: the log's folder with \".index\" behind it." placeholder:"FOLDER"`
}

// openIndex opens both and brings the index up to the log.
func (a *auditIndex) openIndex(s *session) (*audit.Log, *views.Index, error) {
	log, _, err := a.open(s)
	if err != nil {
		return nil, nil, s.damaged(err)
	}
	dir := a.Index
	if dir == "" && strings.HasPrefix(a.Folder, "https://") {
		return nil, nil, fmt.Errorf("%w: the index of a log behind a URL needs --index", errUsage)
	}
	if dir == "" {
		dir = filepath.Clean(a.Folder) + ".index"
	}
	x, err := views.Open(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the index: %w", err)
	}
	if err := s.update(x, log); err != nil {
		_ = x.Close()
		return nil, nil, err
	}
	return log, x, nil
}

func (s *session) update(x *views.Index, log *audit.Log) error {
	stop := s.progress(log)
	_, anew, err := x.Update(s.ctx, log)
	stop()
	if err != nil {
		return s.damaged(fmt.Errorf("indexing: %w", err))
	}
	if anew > 0 {
		s.note("The index was made from another log, of %d entries or more, which this one does not continue. It was made anew. If both are of one vault, one of them is a fork: compare with `sallyport audit verify --older`.", anew)
	}
	return nil
}

// auditQuery is which entries a command is about.
type auditQuery struct {
	Owner   string   `help:"Only of this owner: an id or pseudonym, or the beginning of one." placeholder:"ID"`
	Reader  string   `help:"Only of this reader: an id, or the beginning of one, or the name of a business." placeholder:"WHO"`
	Field   string   `help:"Only about this field." placeholder:"FIELD"`
	Kind    []string `help:"Only of this kind, such as use, refusal, grant, revocation, session; several are alternatives." placeholder:"KIND"`
	Outcome []string `help:"Only with this outcome, such as released, grant_revoked, no_grant." placeholder:"CODE"`
	From    string   `help:"Only from this time on: 2026-11-28, 2026-11-28T16:00, with Z for UTC; or 24h for so long ago." placeholder:"TIME"`
	To      string   `help:"Only before this time." placeholder:"TIME"`
}

func (c *auditQuery) query(x *views.Index) (q views.Query, err error) {
	if q.Owner, err = party(x, "owner", c.Owner); err != nil {
		return q, err
	}
	if q.Reader, err = party(x, "reader", c.Reader); err != nil {
		return q, err
	}
	q.Field = policies.Field(c.Field)
	for _, k := range c.Kind {
		q.Kinds = append(q.Kinds, evidence.Kind(k))
	}
	for _, o := range c.Outcome {
		q.Outcomes = append(q.Outcomes, policies.Code(o))
	}
	if q.From, err = moment(c.From); err != nil {
		return q, err
	}
	q.To, err = moment(c.To)
	return q, err
}

// party finds out who is meant.
func party(x *views.Index, role, word string) (policies.Pseudonym, error) {
	if word == "" {
		return policies.Pseudonym{}, nil
	}
	switch found := x.Find(word); len(found) {
	case 1:
		return found[0].Pseudonym, nil
	case 0:
		return policies.Pseudonym{}, fmt.Errorf("%w: the log speaks of nobody who is called %q; give an id, at least six digits of one, or a business's name", policies.CodeNotFound, word)
	default:
		names := make([]string, len(found))
		for i, p := range found {
			names[i] = oneLine(p.String())
		}
		return policies.Pseudonym{}, fmt.Errorf("%w: more than one %s is called %q: %s; give more of the id", errUsage, role, word, strings.Join(names, ", "))
	}
}

// moment reads a time as people write it, in the local zone unless it says Z.
func moment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %q is no time; write 2026-11-28, 2026-11-28T16:00, 2026-11-28T16:00Z, or 24h for so long ago", errUsage, text)
}

type auditSearch struct {
	auditIndex
	auditQuery
	Limit  int    `help:"At most so many entries." default:"50"`
	Before uint64 `help:"Only entries with a lower index: the next page." placeholder:"N"`
}

func (c *auditSearch) Run(s *session) error {
	log, x, err := c.openIndex(s)
	if err != nil {
		return err
	}
	defer x.Close()
	q, err := c.query(x)
	if err != nil {
		return err
	}
	if c.Limit < 1 {
		return fmt.Errorf("%w: --limit is at least 1", errUsage)
	}
	q.Limit, q.Before = c.Limit, c.Before
	rows, before, err := x.Search(q)
	if err != nil {
		return err
	}
	told, err := s.tell(log, x, rows)
	if err != nil {
		return err
	}
	s.print(map[string]any{"entries": told, "before": before}, func(w io.Writer) {
		for _, e := range told {
			fmt.Fprintln(w, e.line())
		}
		switch {
		case len(told) == 0:
			fmt.Fprintln(w, "Nothing of that kind is in the log.")
		case before > 0:
			fmt.Fprintf(w, "There are more: --before %d\n", before)
		}
	})
	return nil
}

// toldEntry is an entry with its sentence.
type toldEntry struct {
	views.Row
	Text string `json:"text"`
}

func (e *toldEntry) line() string {
	return fmt.Sprintf("%8d  %s  %s", e.Index, e.Time.Local().Format("2006-01-02 15:04:05.000"), oneLine(e.Text))
}

// tell reads the entries of rows from the log, each proven to be in it, and says them in words.
func (s *session) tell(log *audit.Log, x *views.Index, rows []views.Row) ([]toldEntry, error) {
	told := make([]toldEntry, len(rows))
	for i, row := range rows {
		r, err := log.Include(s.ctx, row.Index)
		if err != nil {
			return nil, s.damaged(err)
		}
		text, err := views.Sentence(r, x.Party)
		if err != nil {
			return nil, s.damaged(err)
		}
		told[i] = toldEntry{row, text}
	}
	return told, nil
}

type auditShow struct {
	auditIndex
	Entry uint64 `arg:"" name:"n" help:"The entry's index in the log."`
}

func (c *auditShow) Run(s *session) error {
	log, x, err := c.openIndex(s)
	if err != nil {
		return err
	}
	defer x.Close()
	r, err := log.Include(s.ctx, c.Entry)
	if err != nil {
		return s.damaged(err)
	}
	text, err := views.Sentence(r, x.Party)
	if err != nil {
		return s.damaged(err)
	}
	e, err := entryOf(s.ctx, log, c.Entry)
	if err != nil {
		return s.damaged(err)
	}
	type document struct {
		Type    string         `json:"type"`
		Payload jsontext.Value `json:"payload"`
	}
	var beside *document
	if len(r.Document) > 0 {
		d, err := envelope.Parse(r.Document)
		if err != nil {
			return s.damaged(err)
		}
		beside = &document{d.Type, d.Payload}
	}
	s.print(map[string]any{"entry": e, "text": text, "owner": x.Party(r.Entry.Owner), "reader": x.Party(r.Entry.Reader), "document": beside}, func(w io.Writer) {
		fmt.Fprintf(w, "entry      %d of %d, proven to be in the log\ntime       %s\n", r.Index, log.Checkpoint.Size, r.Time.Local().Format("2006-01-02 15:04:05.000 MST"))
		fmt.Fprintf(w, "what       %s\nkind       %s\noutcome    %s\n", oneLine(text), oneLine(string(r.Entry.Kind)), oneLine(string(r.Entry.Outcome)))
		fmt.Fprintf(w, "owner      %s\nreader     %s\n", oneLine(x.Party(r.Entry.Owner).String()), oneLine(x.Party(r.Entry.Reader).String()))
		if r.Opening != nil {
			fmt.Fprintf(w, "details    %s\n", oneLine(string(r.Opening.Details)))
		}
		if beside != nil {
			fmt.Fprintf(w, "document   %s: %s\n", oneLine(beside.Type), oneLine(string(beside.Payload)))
		}
	})
	return nil
}

type auditStats struct {
	auditIndex
	auditQuery
	By    []string `help:"By what to count, at most three: kind, outcome, owner, reader, field, minute, hour, day." default:"kind,outcome"`
	Limit int      `help:"At most so many lines." default:"100"`
}

func (c *auditStats) Run(s *session) error {
	_, x, err := c.openIndex(s)
	if err != nil {
		return err
	}
	defer x.Close()
	q, err := c.query(x)
	if err != nil {
		return err
	}
	by := make([]views.By, len(c.By))
	for i, word := range c.By {
		by[i] = views.By(word)
	}
	counts, err := x.Count(q, by...)
	if err != nil {
		return err
	}
	left := max(len(counts)-max(c.Limit, 1), 0)
	counts = counts[:len(counts)-left]
	s.print(map[string]any{"counts": counts, "left_out": left}, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintf(t, "entries\t%s\n", strings.Join(c.By, "\t"))
		for i := range counts {
			fmt.Fprint(t, counts[i].Entries)
			for _, b := range by {
				fmt.Fprintf(t, "\t%s", oneLine(countWord(&counts[i], b)))
			}
			fmt.Fprintln(t)
		}
		_ = t.Flush()
		if left > 0 {
			fmt.Fprintf(w, "and %d more: --limit\n", left)
		}
	})
	return nil
}

func countWord(c *views.Count, by views.By) string {
	word := ""
	switch by {
	case views.ByKind:
		word = string(c.Kind)
	case views.ByOutcome:
		word = string(c.Outcome)
	case views.ByOwner:
		word = c.Owner.String()
	case views.ByReader:
		if word = c.Reader.String(); c.Reader.Kind == "several" {
			word = "several"
		}
	case views.ByField:
		word = string(c.Field)
	default:
		word = c.Time
	}
	if word == "" || word == "nobody" {
		return "-"
	}
	return word
}

type auditTail struct {
	auditIndex
	auditQuery
	Lines  int  `short:"n" help:"Begin with so many of the newest." default:"10"`
	Follow bool `short:"f" help:"Go on with what comes, until interrupted."`
}

// tailPause is how often a followed log is looked at.
const tailPause = time.Second

func (c *auditTail) Run(s *session) error {
	log, x, err := c.openIndex(s)
	if err != nil {
		return err
	}
	defer x.Close()
	q, err := c.query(x)
	if err != nil {
		return err
	}
	if c.Lines < 0 {
		return fmt.Errorf("%w: -n is at least 0", errUsage)
	}
	var rows []views.Row
	if c.Lines > 0 {
		q.Limit = c.Lines
		if rows, _, err = x.Search(q); err != nil {
			return err
		}
	}
	for {
		told, err := s.tell(log, x, rows)
		if err != nil {
			return err
		}
		for i := len(told) - 1; i >= 0; i-- { // oldest first, a JSON value a line
			s.printLine(&told[i], told[i].line())
		}
		if !c.Follow {
			return nil
		}
		for seen := x.Rows(); x.Rows() == seen; {
			select {
			case <-s.ctx.Done():
				return nil
			case <-time.After(tailPause):
			}
			if log, err = audit.Open(s.ctx, log.Source, log.Document); err != nil {
				return s.damaged(err)
			}
			if log.Checkpoint.Size < seen {
				return s.damaged(fmt.Errorf("the log had %d entries and has %d now: entries are gone", seen, log.Checkpoint.Size))
			}
			if err := s.update(x, log); err != nil {
				return err
			}
			if x.Rows() > seen {
				if rows, err = since(x, q, seen); err != nil {
					return err
				}
			}
		}
	}
}

// since are the rows of a query from an index on.
func since(x *views.Index, q views.Query, from uint64) ([]views.Row, error) {
	q.Limit = int(x.Rows() - from)
	rows, _, err := x.Search(q)
	for i, row := range rows {
		if row.Index < from {
			return rows[:i], err
		}
	}
	return rows, err
}

type auditReport struct {
	auditIndex
	From string `help:"Only from this time on." placeholder:"TIME"`
	To   string `help:"Only before this time." placeholder:"TIME"`
	Out  string `short:"o" required:"" help:"The HTML file to write. It must not be there yet." placeholder:"FILE"`
}

func (c *auditReport) Run(s *session) error {
	log, x, err := c.openIndex(s)
	if err != nil {
		return err
	}
	defer x.Close()
	var q views.Query
	if q.From, err = moment(c.From); err != nil {
		return err
	}
	if q.To, err = moment(c.To); err != nil {
		return err
	}
	f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(views.Report(s.ctx, f, x, log, q), f.Close()); err != nil {
		_ = os.Remove(c.Out)
		return s.damaged(err)
	}
	s.print(map[string]any{"report": c.Out}, func(w io.Writer) {
		fmt.Fprintf(w, "Written to %s. It says who dealt with whom: keep it as you keep the log.\n", c.Out)
	})
	return nil
}
