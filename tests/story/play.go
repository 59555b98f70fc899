package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/tests/stage"
	"github.com/sallyport/sallyport/tests/stage/search"
)

// limits let the whole cast come from one address at once; a real storefront has less patience.
const limits = `
[limits]
open_rate = 2000.0
open_burst = 4000
login_rate = 2000.0
login_burst = 4000
`

// business is a reader of the story.
type business struct {
	profile, name, wants, purpose string // wants is a group of fields
	code                          string
	mu                            sync.Mutex // its profile serves one command at a time
}

// play is a performance.
type play struct {
	dir      string
	out      io.Writer
	stage    *stage.Stage
	people   []*person
	parcels  *business
	bank     *business
	acts     []act
	read     int // fields that the businesses read
	searched int64
	markers  int
}

// act is a part of the story and what it took.
type act struct {
	what string
	note string
	took time.Duration
}

// perform plays everything.
func (p *play) perform(ctx context.Context) error {
	var err error
	if p.people, err = people(); err != nil {
		return err
	}
	p.parcels = &business{profile: "parcels", name: "Nordwind Parcels", wants: "delivery", purpose: "delivery"}
	p.bank = &business{profile: "bank", name: "Hansa Savings Bank", wants: "payment", purpose: "payment"}
	for _, a := range []struct {
		what string
		play func(context.Context) (string, error)
	}{
		{"build the commands", p.build},
		{"make a token, hold the ceremony, start vault and storefront", p.start},
		{"two businesses register", p.businesses},
		{"people register and import their address books", p.register},
		{"people and businesses exchange codes and connect", p.connect},
		{"people grant different fields to each business", p.grant},
		{"both businesses read everything they were granted", p.readAll},
		{"one person moves; the parcel service reads the new address", p.update},
		{"the person withdraws; the parcel service is refused, the bank is not", p.revoke},
		{"the operator forbids account numbers, and ends that", p.guard},
		{"the person looks at who read what, with proof", p.history},
		{"an auditor decides every release anew, from the published log", p.audit},
		{"search databases, token folder and logs for every plaintext", p.search},
	} {
		fmt.Fprintf(p.out, "%-70s ", a.what)
		begin := time.Now()
		stop := p.tick(begin)
		note, err := a.play(ctx)
		stop()
		if err != nil {
			fmt.Fprintln(p.out, "FAILED")
			return fmt.Errorf("%s: %w", a.what, err)
		}
		took := time.Since(begin)
		fmt.Fprintf(p.out, "%5.1f s  %s\n", took.Seconds(), note)
		p.acts = append(p.acts, act{a.what, note, took})
	}
	return nil
}

// tick shows every half minute that an act goes on, until the function that it returns is called.
func (p *play) tick(begin time.Time) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(30 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				fmt.Fprintf(p.out, "\n%-70s ", fmt.Sprintf("  %.0f s so far", time.Since(begin).Seconds()))
			}
		}
	}()
	return func() { close(quit); <-done }
}

func (p *play) build(ctx context.Context) (string, error) {
	module, err := stage.ModuleRoot()
	if err != nil {
		return "", err
	}
	_, err = stage.Build(ctx, module, p.bin())
	return "", err
}

// published is the folder of the published key-use log.
func (p *play) published() string { return filepath.Join(p.dir, "published") }

func (p *play) bin() string { return filepath.Join(p.dir, "bin") }

func (p *play) start(ctx context.Context) (string, error) {
	bin := func(name string) string { return filepath.Join(p.bin(), name) }
	var err error
	p.stage, err = stage.Open(ctx, stage.Options{
		Dir: filepath.Join(p.dir, "stage"), StorefrontConfig: limits, VaultConfig: fmt.Sprintf("\n[publish]\ndir = %q\n", p.published()),
		Bin: stage.Binaries{HSM: bin("sallyport-hsm"), Vault: bin("sallyport-vault"), Storefront: bin("sallyport-storefront"), Sallyport: bin("sallyport")},
	})
	return "DEVELOPMENT MODE, loopback only", err
}

// run runs the sallyport command and decodes what it prints with --json. A code that is not the wanted one is an error.
func (p *play) run(ctx context.Context, want int, out any, profile string, args ...string) error {
	r, err := p.stage.Sallyport(ctx, profile, append(args, "--json")...)
	if err != nil {
		return err
	}
	if r.Code != want {
		return fmt.Errorf("sallyport %s: exit code %d, expected %d\n%s%s", strings.Join(args[:min(2, len(args))], " "), r.Code, want, r.Stdout, r.Stderr)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(r.Stdout), out); err != nil {
		return fmt.Errorf("sallyport %s: reading what it printed: %w", strings.Join(args[:min(2, len(args))], " "), err)
	}
	return nil
}

func (p *play) businesses(ctx context.Context) (string, error) {
	for _, b := range []*business{p.parcels, p.bank} {
		var made struct {
			Code string `json:"code"`
		}
		if err := p.run(ctx, 0, &made, b.profile, "biz", "init", "--name", b.name); err != nil {
			return "", err
		}
		b.code = made.Code
	}
	return p.parcels.name + ", " + p.bank.name, nil
}

// everyone does something for each person, a few at a time.
func (p *play) everyone(ctx context.Context, do func(*person) error) error {
	work := make(chan *person)
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 2 * runtime.NumCPU() {
		wg.Go(func() {
			for who := range work {
				if err := do(who); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s: %w", who.profile, err))
					mu.Unlock()
					cancel()
				}
			}
		})
	}
	for _, who := range p.people {
		select {
		case work <- who:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ctx.Err()
}

func (p *play) register(ctx context.Context) (string, error) {
	fields := 0
	var mu sync.Mutex
	err := p.everyone(ctx, func(who *person) error {
		if err := p.run(ctx, 0, nil, who.profile, "me", "init"); err != nil {
			return err
		}
		file := filepath.Join(p.stage.Dir(), "profiles", who.profile+".vcf")
		if err := os.WriteFile(file, who.card, 0o600); err != nil {
			return err
		}
		var imported struct {
			Published []string `json:"published"`
		}
		if err := p.run(ctx, 0, &imported, who.profile, "me", "import", file); err != nil {
			return err
		}
		n := len(imported.Published)
		if who.iban != "" { // a vCard has no place for it, so it is typed, on standard input: the shell's history is no place either
			r, err := p.stage.SallyportInput(ctx, who.iban+"\n", who.profile, "me", "set", "bank.iban")
			if err != nil || r.Code != 0 {
				return fmt.Errorf("setting the IBAN: %w\n%s", err, r.Stderr)
			}
			n++
		}
		mu.Lock()
		fields += n
		mu.Unlock()
		return nil
	})
	return fmt.Sprintf("%d people, %d fields", len(p.people), fields), err
}

// connect: the person hands a code to the business, the business makes a key for this person alone, the person takes the business's code.
func (p *play) connect(ctx context.Context) (string, error) {
	err := p.everyone(ctx, func(who *person) error {
		for _, b := range []*business{p.parcels, p.bank} {
			var code struct {
				Code string `json:"code"`
			}
			if err := p.run(ctx, 0, &code, who.profile, "me", "code"); err != nil {
				return err
			}
			b.mu.Lock()
			err := p.run(ctx, 0, nil, b.profile, "biz", "connect", code.Code, "--as", who.profile)
			b.mu.Unlock()
			if err != nil {
				return err
			}
			if err := p.run(ctx, 0, nil, who.profile, "me", "connect", b.code, "--as", b.profile); err != nil {
				return err
			}
		}
		return nil
	})
	return fmt.Sprintf("%d connections", 2*len(p.people)), err
}

func (p *play) grant(ctx context.Context) (string, error) {
	keys := 0
	var mu sync.Mutex
	err := p.everyone(ctx, func(who *person) error {
		for _, b := range []*business{p.parcels, p.bank} {
			var granted struct {
				Granted []string `json:"granted"`
			}
			if err := p.run(ctx, 0, &granted, who.profile, "me", "grant", b.profile, b.wants, "--purpose", b.purpose, "--for", "90d"); err != nil {
				return err
			}
			mu.Lock()
			keys += len(granted.Granted)
			mu.Unlock()
		}
		return nil
	})
	return fmt.Sprintf("%d re-encryption keys in the token", keys), err
}

// reading is what `biz read --json` prints.
type reading struct {
	Values []struct {
		Alias string `json:"alias"`
		Field string `json:"field"`
		Text  string `json:"text"`
		Error *struct {
			Code string `json:"code"`
		} `json:"error"`
	} `json:"values"`
}

func (p *play) readAll(ctx context.Context) (string, error) {
	total := 0
	for _, b := range []*business{p.parcels, p.bank} {
		var got reading
		if err := p.run(ctx, 0, &got, b.profile, "biz", "read", "--all"); err != nil {
			return "", err
		}
		read := map[[2]string]string{}
		for _, v := range got.Values {
			if v.Error != nil {
				return "", fmt.Errorf("%s, %s: %s", v.Alias, v.Field, v.Error.Code)
			}
			read[[2]string{v.Alias, v.Field}] = v.Text
		}
		total += len(got.Values)
		for _, who := range p.people {
			if b == p.parcels && !strings.Contains(read[[2]string{who.profile, "address.home"}], who.street) {
				return "", fmt.Errorf("the parcel service did not read the street of %s", who.profile)
			}
			if b == p.bank && who.iban != "" && read[[2]string{who.profile, "bank.iban"}] != who.iban {
				return "", fmt.Errorf("the bank did not read the IBAN of %s", who.profile)
			}
			if _, leaked := read[[2]string{who.profile, "bank.iban"}]; leaked && b == p.parcels {
				return "", fmt.Errorf("the parcel service read an IBAN, which %s did not grant it", who.profile)
			}
		}
	}
	p.read = total
	return fmt.Sprintf("%d fields opened and compared", total), nil
}

const movedTo = "Am Alten Speicher 5"

func (p *play) update(ctx context.Context) (string, error) {
	who := p.people[0]
	who.secrets = append(who.secrets, search.Marker{Name: "new street of " + who.profile, Value: []byte(movedTo)})
	if err := p.run(ctx, 0, nil, who.profile, "me", "set", "address.home", "street="+movedTo, "locality=Stralsund", "code=18439", "country=Deutschland"); err != nil {
		return "", err
	}
	var got reading
	if err := p.run(ctx, 0, &got, p.parcels.profile, "biz", "read", who.profile, "address.home"); err != nil {
		return "", err
	}
	if len(got.Values) != 1 || !strings.Contains(got.Values[0].Text, movedTo) {
		return "", errors.New("the parcel service did not read the new address")
	}
	return "the parcel service did nothing for it", nil
}

func (p *play) revoke(ctx context.Context) (string, error) {
	who := p.people[0]
	var stopped struct {
		Stopped bool `json:"stopped"`
	}
	if err := p.run(ctx, 0, &stopped, who.profile, "me", "revoke", p.parcels.profile); err != nil {
		return "", err
	}
	if !stopped.Stopped {
		return "", errors.New("the revocation was not confirmed")
	}
	var refused, still reading
	if err := p.run(ctx, 3, &refused, p.parcels.profile, "biz", "read", who.profile, "address.home"); err != nil {
		return "", err
	}
	if len(refused.Values) != 1 || refused.Values[0].Error == nil || refused.Values[0].Error.Code != "grant_revoked" {
		return "", fmt.Errorf("the parcel service was not refused as it should be: %+v", refused.Values)
	}
	if err := p.run(ctx, 0, &still, p.bank.profile, "biz", "read", who.profile, "name.full"); err != nil {
		return "", err
	}
	if len(still.Values) != 1 || still.Values[0].Text != who.name {
		return "", errors.New("the bank can no longer read what it may")
	}
	return "refused: grant_revoked; receipt verified", nil
}

// guard: the operator's rules narrow what people granted, as long as they are in force. The ceremony key signs them, and each is handed in at the vault.
func (p *play) guard(ctx context.Context) (string, error) {
	who := p.people[slices.IndexFunc(p.people, func(one *person) bool { return one.iban != "" })]
	for _, step := range []struct {
		rules string
		exit  int
		want  string
	}{{`@id("no-account-numbers") forbid (principal, action, resource == Field::"bank.iban");`, 3, "guardrail"}, {"", 0, ""}} {
		rules, signed := filepath.Join(p.dir, "rules.cedar"), filepath.Join(p.dir, "guardrails.json")
		if err := os.WriteFile(rules, []byte(step.rules), 0o600); err != nil {
			return "", err
		}
		for _, args := range [][]string{
			{"guardrails", "--dir", p.stage.Ceremony(), "--out", signed, "--yes", rules},
			{"hand-in", "--dir", p.stage.Ceremony(), "--owners", p.stage.OwnersURL(), "--ca", p.stage.CA(), signed},
		} {
			if said, err := exec.CommandContext(ctx, p.stage.Bin().HSM, args...).CombinedOutput(); err != nil {
				return "", fmt.Errorf("sallyport-hsm %s: %w\n%s", args[0], err, said)
			}
		}
		var got reading
		if err := p.run(ctx, step.exit, &got, p.bank.profile, "biz", "read", who.profile, "bank.iban"); err != nil {
			return "", err
		}
		if len(got.Values) != 1 || (got.Values[0].Error == nil) != (step.want == "") || step.want != "" && got.Values[0].Error.Code != step.want {
			return "", fmt.Errorf("under the rules %q the bank got %+v", step.rules, got.Values)
		}
	}
	return "refused: guardrail; then read again", nil
}

func (p *play) history(ctx context.Context) (string, error) {
	var h struct {
		History []struct {
			Kind    string `json:"kind"`
			Outcome string `json:"outcome"`
		} `json:"history"`
	}
	if err := p.run(ctx, 0, &h, p.people[0].profile, "me", "history", "--limit", "200"); err != nil {
		return "", err
	}
	seen := map[string]int{}
	for _, e := range h.History {
		seen[e.Kind+" "+e.Outcome]++
	}
	for _, want := range []string{"use released", "revocation accepted", "refusal grant_revoked"} {
		if seen[want] == 0 {
			return "", fmt.Errorf("the history does not show %q", want)
		}
	}
	return fmt.Sprintf("%d entries, each proven under the token's signature", len(h.History)), nil
}

// audit waits until what was read is published, and needs nothing of the vault but that folder and the join link.
func (p *play) audit(ctx context.Context) (string, error) {
	var report struct {
		Releases  int `json:"releases"`
		Justified int `json:"justified"`
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := p.run(ctx, 0, &report, "auditor", "audit", "recheck", "--join", p.stage.Join(), p.published())
		if err == nil && report.Releases >= p.read {
			break
		}
		if time.Now().After(deadline) {
			return "", errors.Join(fmt.Errorf("the published log shows %d releases, of %d or more that there were", report.Releases, p.read), err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if report.Justified != report.Releases {
		return "", fmt.Errorf("%d of %d releases are justified", report.Justified, report.Releases)
	}
	return fmt.Sprintf("%d releases, all justified by what owners and readers signed", report.Releases), nil
}

// search stops both processes, so that everything is on disk, looks at every byte, and starts them again. That the search finds what is
// there is shown by a name that is public.
func (p *play) search(ctx context.Context) (string, error) {
	if err := errors.Join(p.stage.Storefront.Stop(), p.stage.Vault.Stop()); err != nil {
		return "", err
	}
	folders := []string{p.stage.StorefrontData(), p.stage.VaultData(), p.stage.TokenFolder(), p.stage.Vault.Log, p.stage.Storefront.Log, p.published()}
	public, _, err := search.Folders([]search.Marker{{Name: "a business's public name", Value: []byte(p.bank.name)}}, folders...)
	if err != nil {
		return "", err
	}
	if len(public) == 0 {
		return "", errors.New("the search does not find even what is public, so it proves nothing")
	}
	markers := secrets(p.people)
	found, read, err := search.Folders(markers, folders...)
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return "", fmt.Errorf("%d findings, the first: %s", len(found), found[0])
	}
	if err := p.stage.Vault.Start(ctx); err != nil {
		return "", err
	}
	if err := p.stage.Storefront.Start(ctx); err != nil {
		return "", err
	}
	p.searched, p.markers = read, len(markers)
	return fmt.Sprintf("none of %d values in %.0f MB, in 11 forms", len(markers), float64(read)/1e6), nil
}

func (p *play) summary() {
	var all time.Duration
	for _, a := range p.acts {
		all += a.took
	}
	fmt.Fprintf(p.out, "\nAll %d parts of the story went as told, in %.0f s.\n", len(p.acts), all.Seconds())
}

// goOn tells what to try next, to be pasted into any shell.
func (p *play) goOn(kept bool) {
	s := p.stage
	sallyport := quoted(filepath.Join(p.bin(), "sallyport"))
	command := func(profile, of string) string {
		folder := filepath.Join(s.Dir(), "profiles", profile)
		return fmt.Sprintf(`%s --profile %s --key-file %s %s "$@"`, sallyport, quoted(folder), quoted(folder+".key"), of)
	}
	fmt.Fprintf(p.out, `
Storefront and vault stay up, in DEVELOPMENT MODE with throwaway keys, at %s and %s.
In another terminal:

  me() { %s; }
  me ls --values
  me grant parcels address.home --purpose delivery
  me history

  parcels() { %s; }
  parcels read person-01 address.home
  parcels read person-02 --evidence
  parcels history

  mine() { %s; }
  mine init --join %s
  mine set phone.mobile "+49 151 2345678"

  %s audit verify --join %s %s
  %s audit search --outcome grant_revoked %s

With a curl that was built with OpenSSL 3.5 or later, as Debian 13's and not Debian 12's:

  curl --curves X25519MLKEM768 --cacert %s %s/v1/health

  Logs: %s
        %s
`, s.StorefrontURL(), s.OwnersURL(), command(p.people[0].profile, "me"), command(p.parcels.profile, "biz"),
		command("you", "--ca "+quoted(s.CA())+" me"), quoted(s.Join()), sallyport, quoted(s.Join()), quoted(p.published()), sallyport, quoted(p.published()), quoted(s.CA()), s.StorefrontURL(), s.Vault.Log, s.Storefront.Log)
	if kept {
		fmt.Fprintf(p.out, "\nCtrl-C stops both. Everything is kept in %s.\n", p.dir)
	} else {
		fmt.Fprintf(p.out, "\nCtrl-C stops both and removes everything (--keep DIR keeps it).\n")
	}
}

// quoted is a word for a shell.
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func (p *play) close() error {
	if p.stage == nil {
		return nil
	}
	return p.stage.Close()
}
