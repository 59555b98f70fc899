package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/vault/audit"
)

type auditCommands struct {
	Verify auditVerify `cmd:"" help:"Hold a published log against its signed checkpoint. Example: sallyport audit verify --join LINK /srv/log"`

	Fetch auditFetch `cmd:"" help:"Mirror a vault's log, as one of its auditors, into a folder that all other commands work on. Example: sallyport audit fetch --as ~/auditor https://vault.example:8445 /srv/log"`

	Recheck auditRecheck `cmd:"" help:"Decide every release anew, from the log and the signed documents in it. Example: sallyport audit recheck --join LINK --from 2026-03-01 /srv/log"`

	Search auditSearch `cmd:"" help:"Find entries, newest first. Example: sallyport audit search --reader acme --outcome released --from 24h /srv/log"`
	Show   auditShow   `cmd:"" help:"Show one entry and all that is known of it."`
	Stats  auditStats  `cmd:"" help:"Count entries. Example: sallyport audit stats --by reader,outcome /srv/log"`
	Tail   auditTail   `cmd:"" help:"Show the newest entries, and with -f what comes."`
	Report auditReport `cmd:"" help:"Write a page of HTML with a timeline for each reader."`

	Export auditExport `cmd:"" help:"Hand the log over to a security team's tools. Example: sallyport audit export --format ocsf -o events.jsonl --follow --join LINK /srv/log"`

	Reconcile auditReconcile `cmd:"" help:"Compare the log with the token's own record: what the token did and the log does not say. Example: sallyport audit reconcile --token-log audit.log --format luna /srv/log"`
}

// auditLog is the published log that a command works on.
type auditLog struct {
	Folder   string   `arg:"" name:"dir" help:"Folder of the published log, or its https URL. A vault's own, https://HOST:PORT/v1/log, has no entries: fetch them first."`
	Document string   `name:"vault-document" help:"The vault document, as its ceremony made it. Default: the one that lies beside the log." placeholder:"FILE"`
	Witness  []string `help:"Demand that this witness cosigned the log, given by its verifier key. Several: of all of them, or of as many as --need says." placeholder:"KEY" sep:"none"`
	Need     int      `help:"How many of the witnesses are needed. Default: all." placeholder:"N"`
	Join     string   `help:"The join link of the vault, from its ceremony: the vault document must be the one that it names." placeholder:"LINK"`
}

// open opens the log. pinned tells whether the vault document came from elsewhere than the log.
func (a *auditLog) open(s *session) (log *audit.Log, pinned bool, err error) {
	document, pinned, err := a.document(s)
	if err != nil {
		return nil, false, err
	}
	source, err := s.place(a.Folder)
	if err != nil {
		return nil, false, err
	}
	rule, err := a.witnesses()
	if err != nil {
		return nil, false, err
	}
	log, err = audit.OpenWitnessed(s.ctx, source, document, rule)
	return log, pinned, err
}

// witnesses are those that must have cosigned.
func (a *auditLog) witnesses() (evidence.Witnesses, error) { return witnessRule(a.Witness, a.Need) }

// witnessRule demands need of the witnesses with these keys, and all of them if need is 0.
func witnessRule(keys []string, need int) (rule evidence.Witnesses, err error) {
	for _, key := range keys {
		c, err := evidence.ParseCosigner(key)
		if err != nil {
			return rule, fmt.Errorf("%w: %w", errUsage, err)
		}
		rule.Of = append(rule.Of, c)
	}
	if rule.Need = need; need == 0 {
		rule.Need = len(rule.Of)
	}
	if err := rule.Validate(); err != nil {
		return rule, fmt.Errorf("%w: %w", errUsage, err)
	}
	return rule, nil
}

// errOtherLog: the log, or the link, is another vault's. No storefront has to do with it.
var errOtherLog = fmt.Errorf("%w: the vault document is signed by another ceremony than the join link names", policies.ErrPin)

// document is the vault document that the log is verified under. pinned tells whether it came from elsewhere than the log.
func (a *auditLog) document(s *session) (document *policies.VaultDocument, pinned bool, err error) {
	if a.Document != "" {
		raw, err := os.ReadFile(a.Document)
		if err != nil {
			return nil, false, err
		}
		document, err = audit.ParseDocument(raw)
		if err != nil {
			return nil, false, err
		}
	} else {
		source, err := s.place(a.Folder)
		if err != nil {
			return nil, false, err
		}
		if document, err = audit.OpenDocument(s.ctx, source); err != nil {
			return nil, false, err
		}
	}
	if a.Join != "" {
		link, err := links.ParseJoin(a.Join)
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", errUsage, err)
		}
		if link.Vault != document.Vault || link.Ceremony != policies.HashKey(document.CeremonyKey) {
			return nil, false, errOtherLog
		}
	}
	pinned = a.Document != "" || a.Join != ""
	if !pinned {
		s.note("The vault document lies beside the log and proves nothing by itself. Compare: vault %s, ceremony key %s. Or give --join.", document.Vault, policies.HashKey(document.CeremonyKey))
	}
	return document, pinned, nil
}

type auditVerify struct {
	auditLog
	Older string  `help:"Show besides that this older checkpoint is a beginning of the log." placeholder:"FILE"`
	Entry *uint64 `help:"Verify only the entry with this index, from hash tiles, and print it." placeholder:"N"`
}

// verified is the result of a verification.
type verified struct {
	Verified  bool           `json:"verified"` // all entries, or the one that was asked for
	Vault     string         `json:"vault,omitempty"`
	Pinned    bool           `json:"pinned"` // the vault document came from elsewhere than the log
	Size      uint64         `json:"size"`
	Root      policies.Hash  `json:"root"`
	Witnesses []cosigned     `json:"witnesses,omitzero"`
	Log       *audit.Summary `json:"log,omitzero"`
	Entry     *auditEntry    `json:"entry,omitzero"`
	Damage    *auditDamage   `json:"damage,omitzero"`
}

// cosigned is a witness's word that the checkpoint was the newest at a time.
type cosigned struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
}

// auditDamage is what is wrong with a log.
type auditDamage struct {
	File  string `json:"file"`
	Entry *int64 `json:"entry,omitzero"`
	Last  *int64 `json:"last,omitzero"`
	What  string `json:"what"`
}

// auditEntry is an entry as it is printed.
type auditEntry struct {
	Index   uint64             `json:"index"`
	Time    time.Time          `json:"time"`
	Kind    evidence.Kind      `json:"kind"`
	Owner   policies.Pseudonym `json:"owner,omitzero"`
	Reader  policies.Pseudonym `json:"reader,omitzero"`
	Outcome policies.Code      `json:"outcome,omitzero"`
	Details *evidence.Details  `json:"details,omitzero"`
	Erased  bool               `json:"erased,omitzero"`
	Absent  bool               `json:"absent,omitzero"`
}

func (c *auditVerify) Run(s *session) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(800) // little is in use at a time, and files are read into new memory: at 100 the collector takes a third of the time
	}
	log, pinned, err := c.open(s)
	if err != nil {
		return s.damaged(err)
	}
	out := verified{Verified: true, Vault: log.Document.Vault.String(), Pinned: pinned, Size: log.Checkpoint.Size, Root: log.Checkpoint.Root}
	for _, w := range log.Cosigned {
		out.Witnesses = append(out.Witnesses, cosigned{w.By.Name, w.At})
	}
	if c.Older != "" {
		text, err := os.ReadFile(c.Older)
		if err != nil {
			return err
		}
		if err := log.Consistent(s.ctx, string(text)); err != nil {
			return s.damaged(err)
		}
	}
	if c.Entry != nil {
		if out.Entry, err = entryOf(s.ctx, log, *c.Entry); err != nil {
			return s.damaged(err)
		}
	} else {
		stop := s.progress(log)
		out.Log, err = log.Verify(s.ctx)
		stop()
		switch {
		case errors.Is(err, fs.ErrNotExist) && !c.entries(s.ctx, log) && c.Older != "":
			out.Verified = false
			s.note("Of the log itself nothing was verified: its entries are not there. An auditor has them by `sallyport audit fetch`.")
		case errors.Is(err, fs.ErrNotExist) && !c.entries(s.ctx, log):
			return fmt.Errorf("the entries are not there; an auditor has them by `sallyport audit fetch`: %w", err)
		case err != nil:
			return s.damaged(err)
		}
	}
	s.print(out, func(w io.Writer) {
		for _, one := range out.Witnesses {
			fmt.Fprintf(w, "Witness %s saw this log of %d entries at %s, and no other.\n", oneLine(one.Name), out.Size, one.Time.Format(time.RFC3339))
		}
		if c.Older != "" {
			fmt.Fprintln(w, "The older checkpoint is a beginning of this log.")
		}
		if e := out.Entry; e != nil {
			fmt.Fprintf(w, "Entry %d is in the log of %d entries that the token signed: %s at %s %s\n", e.Index, out.Size, e.Kind, e.Time.Format("2006-01-02 15:04:05.000"), oneLine(string(e.Outcome)))
			return
		}
		l := out.Log
		if l == nil {
			return
		}
		fmt.Fprintf(w, "All %d entries are those that the token signed.\nroot       %s\n", l.Size, l.Root)
		if l.Size > 0 {
			fmt.Fprintf(w, "time       %s to %s\n", l.First.Format(time.RFC3339), l.Last.Format(time.RFC3339))
		}
		fmt.Fprintf(w, "bodies     %d, erased %d, not here %d\ndocuments  %d\n", l.Bodies, l.Erased, l.Absent, l.Documents)
		for _, kind := range slices.Sorted(maps.Keys(l.Kinds)) {
			fmt.Fprintf(w, "%-10s %d\n", oneLine(string(kind)), l.Kinds[kind])
		}
	})
	return nil
}

// entries reports whether there are entries of the log. A vault's own door hands none out; where there are some, one that is missing is a hole.
func (a *auditLog) entries(ctx context.Context, log *audit.Log) bool {
	if !strings.HasPrefix(a.Folder, "https://") {
		_, err := os.Stat(filepath.Join(a.Folder, "tile", "entries"))
		return err == nil
	}
	_, err := log.Include(ctx, 0)
	return !errors.Is(err, fs.ErrNotExist)
}

func entryOf(ctx context.Context, log *audit.Log, index uint64) (*auditEntry, error) {
	r, err := log.Include(ctx, index)
	if err != nil {
		return nil, err
	}
	e := &auditEntry{
		Index: r.Index, Time: r.Time, Kind: r.Entry.Kind, Owner: r.Entry.Owner, Reader: r.Entry.Reader, Outcome: r.Entry.Outcome,
		Erased: r.Opening == nil && !r.Absent, Absent: r.Absent,
	}
	if r.Opening != nil {
		e.Details, err = r.Details()
	}
	return e, err
}

// damaged prints, with --json, what is wrong with a log as the result that it is. Other errors go their usual way.
func (s *session) damaged(err error) error {
	var d *audit.DamageError
	if !s.JSON || !errors.As(err, &d) {
		return err
	}
	damage := &auditDamage{File: d.File, What: d.Err.Error()}
	if d.Index >= 0 {
		damage.Entry, damage.Last = &d.Index, &d.Last
	}
	s.print(verified{Damage: damage}, nil)
	return errQuiet{err}
}

// progress shows on a terminal how far a command is, and returns what ends that.
func (s *session) progress(log *audit.Log) (stop func()) {
	f, ok := s.stderr.(*os.File)
	if !ok || s.JSON || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	var mu sync.Mutex
	begun := time.Now()
	shown := begun
	log.Progress = func(done, of uint64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(shown) >= 200*time.Millisecond {
			shown = now
			fmt.Fprintf(f, "\r\x1b[K%d of %d entries, %.0f a second", done, of, float64(done)/now.Sub(begun).Seconds())
		}
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if shown != begun {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}
