package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	attested "github.com/sallyport/sallyport/policies/deposit"
	"github.com/sallyport/sallyport/policies/registry"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/model/reference"
	"github.com/sallyport/sallyport/tests/stage"
)

// lineTimeout is how long one line may take. None should take a tenth of it.
const lineTimeout = 60 * time.Second

// play is one script being played.
type play struct {
	*World
	script  *Script
	owners  map[string]policies.OwnerID
	names   map[policies.AuthorID]string
	readers map[string]policies.ReaderID
	devices map[string]*device
	mu      sync.Mutex                   // guards what follows
	backups map[string][][]byte          // of each owner, the newest last
	former  map[string][]*devices.Drawer // what devices of an owner had before the root was replaced
	sheets  map[string][]sheet           // of each owner, in the order in which they were printed
	over    map[may]time.Time            // when the last permission of a writer ends by itself; zero: never
}

// device is a device of an owner, or a reader with a session of its own. Several of one have one identity: one was made from the other's backup.
type device struct {
	mu     sync.Mutex // held while it does something: a device does one thing at a time
	drawer *devices.Drawer
	owner  *client.Owner
	reader *client.Reader
	known  map[string]known // what a reader has, by owner:field
}

// known is a version that a reader has, and who wrote it.
type known struct {
	author  policies.AuthorID
	version uint64
}

// Play plays a script with people who are new to the world and returns what happened. At the end everything is finished, everybody reads
// everything, every grant is revoked, and everybody tries again. An error says that the world is not fit for use any more.
func (w *World) Play(ctx context.Context, s *Script) ([]reference.Event, error) {
	w.played.Add(1)
	p := &play{World: w, script: s, owners: map[string]policies.OwnerID{}, names: map[policies.AuthorID]string{}, readers: map[string]policies.ReaderID{}, devices: map[string]*device{}, backups: map[string][][]byte{}, former: map[string][]*devices.Drawer{}, sheets: map[string][]sheet{}, over: map[may]time.Time{}}
	defer p.close()
	if err := p.cast(ctx); err != nil {
		return nil, fmt.Errorf("before the script began: %w", err)
	}
	var events []reference.Event
	for i := 0; i < len(s.Lines); {
		end := i + 1
		for end < len(s.Lines) && s.Lines[end].With {
			end++
		}
		happened, err := p.together(ctx, s.Lines[i:end], i)
		events = append(events, happened...)
		if err != nil {
			return events, err
		}
		i = end
	}
	after, err := p.calm(ctx, len(s.Lines))
	return append(events, after...), err
}

func (p *play) close() {
	for _, d := range p.devices {
		d.close()
	}
}

func (d *device) close() {
	if d.owner != nil {
		d.owner.Close()
	}
	if d.reader != nil {
		_ = d.reader.Close() // what it learnt is not needed any more
	}
}

// cast makes owners and readers, has all meet, and gives each a second device.
func (p *play) cast(ctx context.Context) error {
	var none client.Options
	for _, name := range p.script.Owners {
		d := &device{drawer: new(devices.Drawer)}
		var err error
		if d.owner, err = client.InitOwner(ctx, d.drawer, p.network, none); err != nil {
			return err
		}
		p.devices[name+"/1"], p.owners[name], p.names[policies.AuthorID(d.owner.ID())] = d, d.owner.ID(), name
		p.readers[name] = policies.ReaderID(d.owner.ID())
	}
	for _, m := range p.script.meetings() {
		if err := p.meet(ctx, m); err != nil {
			return err
		}
	}
	for _, name := range p.script.Readers {
		d := &device{drawer: new(devices.Drawer), known: map[string]known{}}
		var err error
		if d.reader, err = client.InitReader(ctx, d.drawer, p.network, policies.KindBusiness, name, none); err != nil {
			return err
		}
		p.devices[name+"/1"], p.readers[name], p.names[policies.AuthorID(d.reader.ID())] = d, d.reader.ID(), name
		for _, owner := range p.script.Owners {
			o := p.devices[owner+"/1"].owner
			code, err := o.Code()
			if err != nil {
				return err
			}
			if _, err := d.reader.Connect(ctx, code, owner); err != nil {
				return err
			}
			if _, err := o.Connect(ctx, d.reader.Code(), name); err != nil {
				return err
			}
		}
		second := &device{drawer: new(devices.Drawer), known: map[string]known{}}
		if _, err := d.reader.Backup(false, func(plain []byte) (err error) {
			second.reader, err = client.RestoreReader(second.drawer, plain, none)
			return err
		}); err != nil {
			return err
		}
		p.devices[name+"/2"] = second
	}
	for _, name := range p.script.Owners {
		second := &device{drawer: new(devices.Drawer)}
		if _, err := p.devices[name+"/1"].owner.Backup(false, func(plain []byte) (err error) {
			second.owner, err = client.RestoreOwner(second.drawer, plain, none)
			return err
		}); err != nil {
			return err
		}
		p.devices[name+"/2"] = second
	}
	return nil
}

// together plays lines at the same time. first is the number of the first, from 0.
func (p *play) together(ctx context.Context, lines []Line, first int) ([]reference.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	events := make([]*reference.Event, len(lines))
	errs := make([]error, len(lines))
	var all sync.WaitGroup
	for i := range lines {
		all.Go(func() { events[i], errs[i] = p.line(ctx, &lines[i], first+i) })
	}
	all.Wait()
	var out []reference.Event
	for i, e := range events {
		if e != nil {
			out = append(out, *e)
		}
		if errs[i] != nil {
			return out, fmt.Errorf("%s: %w", &lines[i], errs[i])
		}
	}
	if ctx.Err() != nil {
		return out, fmt.Errorf("line %d: it took longer than %s: %w", first+1, lineTimeout, ctx.Err())
	}
	return out, nil
}

// line plays one line. An error is one of the world, not of the line.
func (p *play) line(ctx context.Context, l *Line, n int) (*reference.Event, error) {
	e := &reference.Event{Line: n + 1, Who: l.Who, Do: l.Do, Fields: l.Fields, Reader: l.Reader, Terms: l.Terms, Keep: l.Keep, Cut: l.Cut != 0, Attack: l.Attack, Again: l.Again, To: l.To}
	d := p.devices[l.Who]
	switch {
	case l.Do == reference.Pair:
		for _, device := range []string{"/1", "/2"} {
			d := p.devices[name(l.Who)+device]
			d.mu.Lock()
			defer d.mu.Unlock()
		}
	case d != nil:
		d.mu.Lock()
		defer d.mu.Unlock()
	}
	if l.Cut != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Cut)
		defer cancel()
	}
	fields := make([]policies.Field, len(l.Fields))
	for i, f := range l.Fields {
		fields[i] = policies.Field(f)
	}
	e.Start = time.Now().UnixNano()
	defer func() {
		if e.End == 0 {
			e.End = time.Now().UnixNano()
		}
	}()
	switch l.Do {
	case reference.Set:
		e.Number = n + 1
		var changes []client.Change
		owner, _, _ := strings.Cut(l.Who, "/")
		for _, f := range fields {
			changes = append(changes, client.Change{Field: f, Value: fmt.Appendf(nil, "%s %s %d", owner, f, e.Number)})
		}
		answer(e, d.owner.Set(ctx, changes...))
	case reference.Remove:
		answer(e, d.owner.Remove(ctx, fields...))
	case reference.Rotate:
		answer(e, d.owner.Rotate(ctx, fields...))
	case reference.Grant:
		o := client.GrantOptions{Purpose: l.Terms.Purpose, ReadsPerDay: uint64(l.Terms.Limit), Duration: l.Terms.For, Custody: policies.Custody(l.Terms.Custody)}
		if l.Terms.From != 0 {
			o.Begins = time.Now().Add(l.Terms.From)
		}
		answer(e, d.owner.Grant(ctx, p.readers[l.Reader], fields, o))
	case reference.Revoke:
		answer(e, d.owner.Revoke(ctx, p.readers[l.Reader], fields, client.RevokeOptions{KeepEpoch: l.Keep}))
	case reference.GrantWrite:
		o := client.GrantOptions{Duration: l.Terms.For}
		if l.Terms.From != 0 {
			o.Begins = time.Now().Add(l.Terms.From)
		}
		p.limited(l)
		answer(e, d.owner.GrantWrite(ctx, p.readers[l.Reader], fields, o))
	case reference.EndWrite:
		answer(e, d.owner.EndWrite(ctx, p.readers[l.Reader], fields))
	case reference.Write:
		e.Number = n + 1
		p.write(ctx, d, l, e)
	case reference.Adopt, reference.Reject:
		p.settle(ctx, d, l, e)
	case reference.GiveUp:
		fields := ofOne(l, e)
		var err error
		if d.owner != nil {
			_, err = d.owner.GiveUp(ctx, e.Owner, fields...)
		} else {
			_, err = d.reader.GiveUp(ctx, p.owners[e.Owner], fields...)
		}
		answer(e, err)
	case reference.Refresh:
		if err := p.refresh(ctx, d, e); err != nil {
			return nil, err
		}
	case reference.Contacts:
		return e, p.contacts(d, e)
	case reference.Block, reference.Unblock:
		answer(e, d.owner.Block(p.readers[l.Reader], l.Do == reference.Block))
	case reference.Freeze:
		answer(e, p.freeze(ctx, p.owners[l.Who]))
	case reference.Thaw:
		answer(e, d.owner.Thaw(ctx))
	case reference.Close:
		answer(e, d.owner.CloseAccount(ctx))
	case reference.Password:
		answer(e, d.owner.SetPassword(ctx, p.keys, passwordOf(l.Attack), l.claim()))
	case reference.Unlock:
		answer(e, d.owner.UnlockPassword(ctx))
	case reference.Guess:
		answer(e, p.guess(ctx, p.owners[l.Who], l.Attack))
	case reference.KitPrint, reference.KitReplace:
		e.Number = n + 1
		p.print(ctx, d, l, e)
	case reference.KitOff:
		_, err := d.owner.DropKit(ctx, l.claim())
		answer(e, err)
	case reference.KitTest:
		s := p.sheet(l)
		e.Number = s.number
		answer(e, d.owner.TestKit(ctx, s.kit))
	case reference.SwitchOff:
		p.switchOff(ctx, d, e)
	case reference.Drop:
		if e.Result = reference.NotAsked; d.owner.AccountServer() != "" {
			answer(e, d.owner.DropAccount(ctx))
		}
	case reference.Pair:
		p.pair(ctx, d, l, e)
		if l.Cut != 0 { // both processes are ended
			if err := p.devices[other(l.Who)].restart(); err != nil {
				return nil, err
			}
		}
	case reference.Rescue:
		p.rescue(ctx, d, l, e)
	case reference.Announce:
		answer(e, p.announce(ctx, d, l))
	case reference.Object:
		answer(e, d.owner.CancelReplacement(ctx))
	case reference.Succeed:
		if err := p.succeed(ctx, d, l, e); err != nil {
			return nil, err
		}
	case reference.Register:
		answer(e, d.reader.Register(ctx, registry.Introduced))
	case reference.Introduce:
		answer(e, d.owner.Introduce(ctx, p.readers[l.Reader], p.readers[l.To], "a customer of mine"))
	case reference.LookUp:
		if _, err := d.reader.Receive(ctx, 0); err != nil {
			answer(e, err)
			break
		}
		_, err := d.reader.LookUp(ctx, policies.IdentityID(p.readers[l.Reader]), "")
		answer(e, err)
	case reference.Forward, reference.Collect:
		p.forward(ctx, d, l, e)
	case deposit:
		e.Number = n + 1
		p.deposit(ctx, d, l, e)
	case reference.Ask, reference.Specify:
		p.ask(ctx, d, l, e)
	case reference.Hear:
		p.hear(ctx, d, e)
	case reference.Answer:
		p.reply(ctx, d, l, e)
	case reference.Stop:
		_, err := d.owner.Stop(ctx, p.readers[l.Reader], fields)
		answer(e, err)
	case reference.Replace, reference.Suspend:
		answer(e, p.replace(ctx, d, l))
	case reference.Restore:
		e.Result = reference.OK
		return e, p.restore(ctx, d, l, e)
	case reference.Sync:
		if answer(e, d.owner.Sync(ctx)); e.Result == reference.OK {
			answer(e, d.look(ctx, e))
		}
	case reference.Read:
		p.read(ctx, d, l, e)
	case reference.Restart:
		e.Result = reference.OK
		return e, d.restart()
	case reference.Kill:
		e.Result = reference.OK
		return e, p.kill(ctx, l, e)
	case reference.Replay:
		result, ok := p.replay(ctx, l.Attack, n)
		if !ok {
			return nil, nil
		}
		e.Result = result
	case reference.Forge:
		if l.Attack == "left" {
			e.Result = p.tap.left(ctx, p.owners[l.Who])
			break
		}
		if l.Attack == "old key" || l.Attack == "old root" {
			if err := p.old(ctx, l, e); err != nil {
				return nil, err
			}
			break
		}
		if l.Attack == "writer" {
			key, err := signingKey(p.devices[l.Reader+"/1"].drawer)
			if err != nil {
				return nil, err
			}
			e.Result = p.forge(ctx, p.owners[l.Who], policies.AuthorID(p.readers[l.Reader]), key, l.Attack)
			break
		}
		e.Result = p.forge(ctx, p.owners[l.Who], policies.AuthorID(p.mallory.ID()), p.key, l.Attack)
	case "wait":
		time.Sleep(l.Length)
		return nil, nil
	}
	if l.Cut != 0 && d != nil {
		e.End = time.Now().UnixNano()
		return e, d.restart()
	}
	return e, nil
}

// other is the other device of the same.
func other(who string) string {
	return name(who) + map[bool]string{true: "/2", false: "/1"}[strings.HasSuffix(who, "/1")]
}

// name is whose device or session it is.
func name(who string) string {
	name, _, _ := strings.Cut(who, "/")
	return name
}

// answer notes what somebody was told.
func answer(e *reference.Event, err error) {
	if e.Result = code(err); err != nil {
		e.Said = err.Error()
	}
}

// look notes what the device has.
func (d *device) look(ctx context.Context, e *reference.Event) error {
	name, _, _ := strings.Cut(e.Who, "/")
	for _, f := range d.owner.Fields() {
		value, err := d.owner.Get(ctx, f.Field)
		if err != nil {
			return err
		}
		e.Items = append(e.Items, reference.Item{Owner: name, Field: string(f.Field), Version: f.Version, Number: number(name, string(f.Field), value)})
	}
	return nil
}

// author is the name of who wrote for an owner, nothing for the owner.
func (p *play) author(owner string, id policies.AuthorID) string {
	if id.IsZero() || id == policies.AuthorID(p.owners[owner]) {
		return ""
	}
	if name, ok := p.names[id]; ok {
		return name
	}
	return id.String()
}

// ofOne notes what a line does with fields of one owner.
func ofOne(l *Line, e *reference.Event) (fields []policies.Field) {
	e.Fields = nil
	for _, word := range l.Fields {
		owner, field, _ := strings.Cut(word, ":")
		e.Owner, e.Fields, fields = owner, append(e.Fields, field), append(fields, policies.Field(field))
	}
	return fields
}

// write has a writer publish values of one owner's fields.
func (p *play) write(ctx context.Context, d *device, l *Line, e *reference.Event) {
	var changes []client.Change
	for _, f := range ofOne(l, e) {
		changes = append(changes, client.Change{Field: f, Value: fmt.Appendf(nil, "%s %s %d", e.Owner, f, e.Number)})
	}
	answer(e, d.reader.Write(ctx, p.owners[e.Owner], changes...))
}

// ask has a reader ask one owner for fields, all of them optional.
func (p *play) ask(ctx context.Context, d *device, l *Line, e *reference.Event) {
	terms := client.Ask{Purpose: consent.Purpose{Text: cmp.Or(l.Terms.Purpose, "general"), Term: "ServiceProvision"}, Duration: l.Terms.For, Waits: l.Terms.Waits}
	if terms.Duration == 0 {
		terms.Duration = 24 * time.Hour
	}
	for _, f := range ofOne(l, e) {
		terms.Fields = append(terms.Fields, consent.AskedField{Field: f, Reason: "it is needed"})
	}
	var c client.Consent
	var err error
	if d.owner != nil {
		c, err = d.owner.AskPerson(ctx, e.Owner, terms)
	} else if l.Do == reference.Specify {
		e.Source = l.Reader
		c, err = d.reader.Specify(ctx, p.owners[e.Owner], policies.IdentityID(p.readers[l.Reader]), terms)
	} else {
		c, err = d.reader.Ask(ctx, p.owners[e.Owner], terms)
	}
	if !c.ID.IsZero() {
		e.About = c.ID.String()
	}
	answer(e, err)
}

// forward hands on what an owner ordered for the newest specification of a reader's, or collects what was deposited for it.
func (p *play) forward(ctx context.Context, d *device, l *Line, e *reference.Event) {
	if _, err := d.reader.Receive(ctx, 0); err != nil {
		answer(e, err)
		return
	}
	e.Result = reference.NotAsked
	list := d.reader.Consents()
	i := slices.IndexFunc(list, func(c client.Consent) bool { return !c.Source.IsZero() && c.Order != "" })
	for j, c := range list {
		if !c.Source.IsZero() && c.Order != "" && c.Time.After(list[i].Time) {
			i = j
		}
	}
	if i < 0 {
		return
	}
	c := list[i]
	e.About, e.Source, e.Owner = c.ID.String(), p.names[policies.AuthorID(c.Source)], p.names[policies.AuthorID(c.Party)]
	e.Start = time.Now().UnixNano()
	if l.Do == reference.Forward {
		answer(e, d.reader.Forward(ctx, e.About))
		return
	}
	values, err := d.reader.Collect(ctx, e.About)
	answer(e, err)
	for i := range values {
		e.Items = append(e.Items, p.outcome(e.Owner, &values[i].Value))
	}
	if err != nil {
		for _, f := range c.Fields {
			e.Items = append(e.Items, reference.Item{Owner: e.Owner, Field: string(f)})
		}
	}
}

// deposit carries out the newest order of an owner's.
func (p *play) deposit(ctx context.Context, d *device, l *Line, e *reference.Event) {
	var changes []client.Change
	for _, f := range ofOne(l, e) {
		changes = append(changes, client.Change{Field: f, Value: fmt.Appendf(nil, "%s %s %d", e.Owner, f, e.Number)})
	}
	e.Do, e.Attack = reference.Write, deposit
	if _, err := d.reader.Receive(ctx, 0); err != nil {
		answer(e, err)
		return
	}
	e.Result = reference.NotAsked
	for _, o := range d.reader.Orders() {
		if o.Customer != p.owners[e.Owner] {
			continue
		}
		e.About, e.Asked, e.Over = o.ID.String(), nil, !time.Now().Before(o.Until)
		for _, a := range o.Asked {
			e.Asked = append(e.Asked, string(a.Field))
		}
	}
	e.Start = time.Now().UnixNano()
	if e.About != "" {
		answer(e, d.reader.Deposit(ctx, e.About, changes...))
	}
}

// hear has a reader hear what was answered.
func (p *play) hear(ctx context.Context, d *device, e *reference.Event) {
	var err error
	var asked []client.Consent
	if d.owner != nil {
		if _, err = d.owner.Receive(ctx); err == nil {
			asked, err = d.owner.AskedPeople()
		}
	} else {
		_, err = d.reader.Receive(ctx, 0)
		asked = d.reader.Consents()
	}
	answer(e, err)
	for _, c := range asked {
		for _, f := range c.Fields {
			e.Items = append(e.Items, reference.Item{Owner: p.names[policies.AuthorID(c.Party)], Field: string(f), Result: string(c.Status)})
		}
	}
}

// reply has an owner answer the newest request of a reader that waits, or, again, that was answered.
func (p *play) reply(ctx context.Context, d *device, l *Line, e *reference.Event) {
	if _, err := d.owner.Receive(ctx); err != nil {
		answer(e, err)
		return
	}
	var request *client.Consent
	for _, c := range d.owner.Inbox(true) {
		answered := c.Status != consent.Pending && c.Status != consent.Expired
		if policies.ReaderID(c.Party) == p.readers[l.Reader] && answered == l.Again {
			request = &c
		}
	}
	if request == nil {
		e.Result = reference.NotAsked
		return
	}
	e.About, e.Source = request.ID.String(), p.names[policies.AuthorID(request.Source)]
	if e.Source != "" { // it may write from now on, for as long as that says
		p.mu.Lock()
		p.over[may{strings.Split(l.Who, "/")[0], e.Source}] = time.Time{}
		p.mu.Unlock()
	}
	for _, f := range request.Asked {
		e.Asked = append(e.Asked, string(f.Field))
	}
	if e.Terms.Purpose = request.Purpose.Text; e.Terms.Purpose == "general" {
		e.Terms.Purpose = ""
	}
	if long := time.Duration(request.Duration) * time.Second; long < time.Hour {
		e.Terms.For = long
	}
	e.Terms.Waits = request.Expires.Sub(request.Time)
	if e.Terms.Waits > time.Hour {
		e.Terms.Waits = 0
	}
	fields := make([]policies.Field, len(l.Fields))
	for i, f := range l.Fields {
		fields[i] = policies.Field(f)
	}
	e.Start = time.Now().UnixNano()
	e.Over = !time.Now().Before(request.Expires)
	c, err := d.owner.Answer(ctx, request.ID.String(), fields, "")
	if answer(e, err); err == nil && c.Status == consent.Pending {
		e.Result = reference.TakenBack
	}
}

// freeze has two operators stop all reading of an owner.
func (w *World) freeze(ctx context.Context, owner policies.OwnerID) error {
	order, err := w.operators[0].FreezeOrder(ctx, owner)
	if err != nil {
		return err
	}
	return w.operators[1].Freeze(ctx, order)
}

// settle adopts what a writer wrote, or rejects it, once the device has shown it.
func (p *play) settle(ctx context.Context, d *device, l *Line, e *reference.Event) {
	name, _, _ := strings.Cut(l.Who, "/")
	writer, field := policies.AuthorID(p.readers[l.Reader]), policies.Field(l.Fields[0])
	in, err := d.owner.Incoming(ctx)
	if err != nil {
		answer(e, err)
		return
	}
	for _, w := range in {
		e.Items = append(e.Items, reference.Item{Owner: name, Field: string(w.Field), Author: p.author(name, w.Writer), Version: w.Version, Number: number(name, string(w.Field), w.Bytes)})
	}
	if l.Do == reference.Adopt {
		answer(e, d.owner.Adopt(ctx, writer, field))
		return
	}
	answer(e, d.owner.Reject(ctx, writer, field))
}

// number is the number in a value, -1 if it is none of this owner and field.
func number(owner, field string, value []byte) int {
	if inner, _, err := attested.Unwrap(value); err == nil {
		value = inner
	}
	text, ok := strings.CutPrefix(string(value), owner+" "+field+" ")
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		return -1
	}
	return n
}

func (p *play) read(ctx context.Context, d *device, l *Line, e *reference.Event) {
	var items []client.Item
	for _, word := range l.Fields {
		owner, field, _ := strings.Cut(word, ":")
		it := client.Item{Owner: p.owners[owner], Field: policies.Field(field)}
		if l.Known {
			it.Author, it.Known = d.known[word].author, d.known[word].version
		}
		items = append(items, it)
	}
	values, err := d.reader.Read(ctx, items...)
	answer(e, err)
	e.Fields = nil
	for i, word := range l.Fields {
		owner, field, _ := strings.Cut(word, ":")
		it := reference.Item{Owner: owner, Field: field, Known: items[i].Known, By: p.author(owner, items[i].Author)}
		if err == nil {
			v := &values[i]
			got := p.outcome(owner, v)
			it.Result, it.Author, it.Version, it.Number, it.At = got.Result, got.Author, got.Version, got.Number, got.At
			if v.Err == nil && !v.Unchanged {
				d.known[word] = known{v.Author, v.Version}
			}
		}
		e.Items = append(e.Items, it)
	}
}

// outcome is what a reader was given.
func (p *play) outcome(owner string, v *client.Value) reference.Item {
	it := reference.Item{Owner: owner, Field: string(v.Field)}
	if v.Err != nil {
		it.Result = code(v.Err)
		return it
	}
	it.Author, it.Version, it.At = p.author(owner, v.Author), v.Version, v.Time.UnixMilli()
	if it.Result = string(policies.CodeUnchanged); !v.Unchanged {
		it.Result, it.Number = string(policies.CodeReleased), number(owner, it.Field, v.Bytes)
	}
	return it
}

// passwordOf makes a password that is long enough out of a word.
func passwordOf(word string) []byte { return []byte("correct horse battery " + word) }

// guess makes a new device with a password.
func (p *play) guess(ctx context.Context, owner policies.OwnerID, word string) error {
	o, err := client.RestoreFromAccount(ctx, new(devices.Drawer), p.network, client.WayBack{Server: p.keys, Owner: owner, Password: passwordOf(word)}, client.Options{})
	if err != nil {
		return err
	}
	defer o.Close()
	if o.ID() != owner {
		return errors.New("the profile is of somebody else")
	}
	return nil
}

// replace gives an owner, or a reader, a new root. What the device had is kept, as a thief might.
func (p *play) replace(ctx context.Context, d *device, l *Line) error {
	name, _, _ := strings.Cut(l.Who, "/")
	before := d.drawer.Copy()
	p.mu.Lock()
	o := client.ReplaceOptions{Reason: succession.Stolen}
	if l.Attack != "" {
		o.Reason = succession.Reason(l.Attack)
	}
	if n := len(p.backups[name]); n > 0 {
		o.Recovery = p.backups[name][n-1]
	}
	p.mu.Unlock()
	if d.reader != nil {
		return d.reader.Replace(ctx, o, p.keep(name))
	}
	err := d.owner.Replace(ctx, o, p.keep(name))
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.former[name] = append(p.former[name], before)
	}
	return err
}

// keep keeps a backup that somebody makes.
func (p *play) keep(name string) func(plain []byte) error {
	return func(plain []byte) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.backups[name] = append(p.backups[name], bytes.Clone(plain))
		return nil
	}
}

// restore makes a device anew from the newest backup that is of use: of two devices that replaced the root at the same time one was too late. Where nothing was replaced there is no backup, and
// it is a restart.
func (p *play) restore(ctx context.Context, d *device, l *Line, e *reference.Event) error {
	name, _, _ := strings.Cut(l.Who, "/")
	p.mu.Lock()
	backups := slices.Clone(p.backups[name])
	p.mu.Unlock()
	if len(backups) == 0 {
		e.Do = reference.Restart
		return d.restart()
	}
	for _, plain := range slices.Backward(backups) {
		if d.reader != nil {
			var err error
			d.drawer, d.known = new(devices.Drawer), map[string]known{}
			if d.reader, err = client.RestoreReader(d.drawer, bytes.Clone(plain), client.Options{}); err != nil {
				return err
			}
			if _, err := d.reader.Granted(ctx); !errors.Is(err, client.ErrReplaced) && !errors.Is(err, policies.CodeUnauthorized) && !errors.Is(err, policies.CodeKeyReplaced) {
				break
			}
			continue
		}
		d.owner.Close()
		d.drawer = new(devices.Drawer)
		var err error
		if d.owner, err = client.RestoreOwner(d.drawer, bytes.Clone(plain), client.Options{}); err != nil {
			return err
		}
		if err := d.owner.Sync(ctx); !errors.Is(err, client.ErrReplaced) {
			break
		}
	}
	return nil
}

// old tries what a device had that was replaced: its key at the vault's door, and its root on what is stored now.
func (p *play) old(ctx context.Context, l *Line, e *reference.Event) error {
	for _, drawer := range p.former[l.Who] {
		if l.Attack == "old key" {
			key, err := signingKey(drawer)
			if err != nil {
				return err
			}
			if e.Result = p.forge(ctx, p.owners[l.Who], policies.AuthorID(p.owners[l.Who]), key, "signature"); e.Result != "key_replaced" {
				return nil
			}
			continue
		}
		former, err := root(drawer)
		if err != nil {
			return err
		}
		defer former.Zero()
		e.Result = "opens nothing"
		leaves, err := leaves(p.devices[l.Who+"/1"].drawer)
		if err != nil {
			return err
		}
		for i := range leaves {
			key, err := former.FieldKey(leaves[i].Slot)
			if err != nil {
				return err
			}
			if key.Opens(&leaves[i]) {
				e.Result = "opens " + string(leaves[i].Field)
				return nil
			}
		}
	}
	return nil
}

// restart ends a device's process and begins anew with what it had stored.
func (d *device) restart() (err error) {
	if d.owner != nil {
		d.owner.Close()
		d.owner, err = client.OpenOwner(d.drawer, client.Options{})
		return err
	}
	// Killed, not closed: what it has not stored yet is forgotten.
	d.reader, err = client.OpenReader(d.drawer, client.Options{})
	return err
}

func (p *play) kill(ctx context.Context, l *Line, e *reference.Event) error {
	time.Sleep(l.After)
	victims := map[string][]*stage.Daemon{"vault": {p.stage.Vault}, "storefront": {p.stage.Storefront}, "both": {p.stage.Vault, p.stage.Storefront}, "keys": {&p.keyServer.Daemon}}[l.Who]
	e.Start = time.Now().UnixNano()
	for _, d := range victims {
		d.Kill()
	}
	time.Sleep(l.Length)
	for _, d := range victims {
		if err := d.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// calm is the end of every script: with everything running, each device finishes what it began, and the world is as the model says to
// the last reader.
func (p *play) calm(ctx context.Context, n int) (events []reference.Event, err error) {
	run := func(l Line) error {
		n++
		happened, err := p.together(ctx, []Line{l}, n-1)
		events = append(events, happened...)
		return err
	}
	all := func() error {
		var items []string
		for _, owner := range p.script.Owners {
			for _, f := range p.fields() {
				items = append(items, owner+":"+f)
			}
		}
		for _, reader := range p.script.Readers {
			for _, device := range []string{"/1", "/2"} {
				if err := run(Line{Who: reader + device, Do: reference.Read, Fields: items, Known: device == "/2"}); err != nil {
					return err
				}
			}
		}
		for _, person := range p.script.persons() {
			for _, device := range []string{"/1", "/2"} {
				for _, do := range []string{reference.Refresh, reference.Restart, reference.Contacts} {
					if err := run(Line{Who: person + device, Do: do}); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	// What is announced is taken back, or carried out when its time is over, in turns.
	for _, owner := range p.script.Owners {
		if !slices.ContainsFunc(p.script.Lines, func(l Line) bool { return l.Do == reference.Announce && name(l.Who) == owner }) {
			continue
		}
		l := Line{Who: owner + "/1", Do: reference.Object}
		if len(p.script.Lines)%2 == 0 {
			time.Sleep(reference.Wait + 200*time.Millisecond)
			l.Do = reference.Succeed
		}
		for _, l := range []Line{{Who: l.Who, Do: reference.Restore}, {Who: l.Who, Do: reference.Sync}, l} {
			if err := run(l); err != nil {
				return events, err
			}
		}
	}
	// Both devices of each are of one root again: that of a replacement which is in force, or which the second carries out.
	for _, name := range slices.Concat(p.script.Owners, p.script.Readers) {
		for _, device := range []string{"/1", "/2"} {
			if len(p.backups[name]) == 0 {
				continue
			}
			if err := run(Line{Who: name + device, Do: reference.Restore}); err != nil {
				return events, err
			}
		}
	}
	// An account that somebody began to close is closed.
	for _, owner := range p.script.Owners {
		i := slices.IndexFunc(p.script.Lines, func(l Line) bool { return l.Do == reference.Close && strings.HasPrefix(l.Who, owner+"/") })
		if i < 0 {
			continue
		}
		if err := run(Line{Who: p.script.Lines[i].Who, Do: reference.Close}); err != nil {
			return events, err
		}
		e := events[len(events)-1]
		e.Do = reference.Calm
		events = append(events, e)
		if err := run(Line{Do: reference.Forge, Who: owner, Attack: "left"}); err != nil {
			return events, err
		}
	}
	for _, owner := range p.script.Owners {
		// The first learns what the second finished, and the other way round.
		for _, device := range []string{"/1", "/2", "/1", "/2"} {
			if err := run(Line{Who: owner + device, Do: reference.Sync}); err != nil {
				return events, err
			}
		}
		for _, e := range events[len(events)-2:] {
			e.Do, e.Items = reference.Calm, nil
			events = append(events, e)
		}
	}
	for _, owner := range p.script.Owners {
		if !slices.ContainsFunc(p.script.Lines, func(l Line) bool { return l.Do == reference.Freeze && l.Who == owner }) {
			continue
		}
		if err := run(Line{Who: owner + "/1", Do: reference.Thaw}); err != nil {
			return events, err
		}
	}
	if err := all(); err != nil {
		return events, err
	}
	for _, owner := range p.script.Owners {
		for _, attack := range []string{"old key", "old root"} {
			if len(p.former[owner]) == 0 {
				continue
			}
			if err := run(Line{Do: reference.Forge, Who: owner, Attack: attack}); err != nil {
				return events, err
			}
		}
	}
	// Who could write cannot any more, and what it wrote stays: first those whose time is over, then all.
	if writers := p.writers(); len(writers) > 0 {
		for _, w := range writers {
			over := p.over[w]
			if over.IsZero() {
				continue
			}
			time.Sleep(time.Until(over))
			for _, l := range []Line{
				{Who: w.writer + "/1", Do: reference.Write, Fields: []string{w.owner + ":" + p.fields()[0]}},
				{Do: reference.Forge, Who: w.owner, Reader: w.writer, Attack: "writer"},
			} {
				if err := run(l); err != nil {
					return events, err
				}
			}
		}
		for _, w := range writers {
			for _, l := range []Line{
				{Who: w.owner + "/1", Do: reference.EndWrite, Reader: w.writer},
				{Who: w.writer + "/1", Do: reference.Write, Fields: []string{w.owner + ":" + p.fields()[0]}},
				{Do: reference.Forge, Who: w.owner, Reader: w.writer, Attack: "writer"},
			} {
				if err := run(l); err != nil {
					return events, err
				}
			}
		}
		if err := all(); err != nil {
			return events, err
		}
	}
	for _, owner := range p.script.Owners {
		for _, reader := range slices.Concat(p.script.Readers, p.script.persons()) {
			if reader == owner || slices.Contains(p.script.Owners, reader) && !slices.Contains(p.script.meetings(), meeting{reader, owner}) {
				continue
			}
			if err := run(Line{Who: owner + "/1", Do: reference.Revoke, Reader: reader, Keep: true}); err != nil {
				return events, err
			}
		}
	}
	return events, all()
}

// limited notes when a permission to write ends by itself, with what the clock leaves open.
func (p *play) limited(l *Line) {
	owner, _, _ := strings.Cut(l.Who, "/")
	w := may{owner, l.Reader}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.over[w]
	switch over := time.Now().Add(l.Terms.From + l.Terms.For + 1100*time.Millisecond); {
	case l.Terms.For == 0 || known && before.IsZero():
		p.over[w] = time.Time{}
	case over.After(before):
		p.over[w] = over
	}
}

// may is an owner and somebody who writes for that owner.
type may struct{ owner, writer string }

// writers are all that the script lets write.
func (p *play) writers() (out []may) {
	for i := range p.script.Lines {
		l := &p.script.Lines[i]
		owner, _, _ := strings.Cut(l.Who, "/")
		w := may{owner, l.Reader}
		if l.Do == reference.Specify {
			w.owner, _, _ = strings.Cut(l.Fields[0], ":")
		}
		if (l.Do == reference.GrantWrite || l.Do == reference.Specify) && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// fields are all that the script names.
func (p *play) fields() []string {
	seen := map[string]bool{}
	var out []string
	for i := range p.script.Lines {
		for _, f := range p.script.Lines[i].Fields {
			if _, field, ok := strings.Cut(f, ":"); ok {
				f = field
			}
			if !seen[f] {
				seen[f] = true
				out = append(out, f)
			}
		}
	}
	return out
}
