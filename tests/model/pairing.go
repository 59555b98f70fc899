package main

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/devices"
	"github.com/sallyport/sallyport/tests/model/reference"
)

// wrongWord says that the person types another word than a device shows.
const wrongWord = "wrong"

// patience is how long two devices wait for each other. A storefront that was killed has forgotten their meeting.
const patience = 20 * time.Second

// pair makes a device anew by approval on the owner's other one. It was lost, so what it had is gone; if nothing comes of it, it turns up again.
func (p *play) pair(ctx context.Context, d *device, l *Line, e *reference.Event) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	fresh, err := client.BeginDevice(ctx, p.network, client.Options{})
	if err != nil {
		answer(e, err)
		return
	}
	defer fresh.Close()
	o, drawer := (*client.Owner)(nil), new(devices.Drawer)
	if o, err = p.approve(ctx, cancel, fresh, drawer, l); err == nil && o.ID() != p.owners[name(l.Who)] {
		err = errors.New("the profile is of somebody else")
	}
	if answer(e, err); err != nil {
		return
	}
	d.owner.Close()
	d.owner, d.drawer = o, drawer
}

// approve has both devices meet, and the person carry a word from each to the other.
func (p *play) approve(ctx context.Context, cancel context.CancelFunc, fresh *client.NewDevice, drawer *devices.Drawer, l *Line) (*client.Owner, error) {
	type shown struct {
		word string
		err  error
	}
	met := make(chan shown, 1)
	go func() {
		word, err := fresh.Meet(ctx)
		met <- shown{word, err}
	}()
	approval, err := p.devices[other(l.Who)].owner.MeetDevice(ctx, fresh.Code())
	if err != nil {
		cancel()
		<-met
		return nil, err
	}
	first := <-met
	if first.err != nil {
		return nil, first.err
	}
	if l.Attack == wrongWord {
		first.word = "0000-0000"
	}
	second, err := approval.Approve(ctx, first.word)
	if err != nil {
		return nil, err
	}
	return fresh.Finish(ctx, second, drawer)
}

// pairing are an owner who adds a device, with something going on meanwhile, and what it does then.
func (d dice) pairing(s *Script, fields []string, sealed bool) (out []Line) {
	fresh := d.one(s.Owners...) + "/" + d.one("1", "2", "2")
	if d.IntN(6) == 0 {
		out = append(out, Line{Who: other(fresh), Do: reference.Replace, Attack: d.one("stolen", "lost")})
		if d.IntN(3) > 0 {
			out = append(out, Line{Who: other(fresh), Do: reference.SwitchOff})
		}
	}
	l := Line{Who: fresh, Do: reference.Pair}
	switch d.IntN(8) {
	case 0:
		out = append(out, Line{Who: d.one("vault", "storefront"), Do: reference.Kill, After: d.ms(1, 1500), Length: d.ms(1, 60)})
		l.With = true
	case 1, 2, 3: // of somebody else: both devices are busy
		if other := d.line(s, fields, sealed); other.Do != reference.Close && other.Do != reference.Kill && other.Do != "wait" && name(other.Who) != name(fresh) {
			other.With = false
			out = append(out, other)
			l.With = true
		}
	}
	if d.IntN(6) == 0 {
		l.Attack = wrongWord
	}
	if d.IntN(8) == 0 {
		l.Cut = d.ms(1, 1500)
	}
	out = append(out, l)
	if d.IntN(4) > 0 {
		out = append(out, Line{Who: fresh, Do: reference.Sync})
	}
	switch d.IntN(5) {
	case 0:
		out = append(out, Line{Who: fresh, Do: reference.Replace, Attack: "stolen"})
	case 1:
		out = append(out, Line{Who: fresh, Do: reference.KitPrint, Again: d.IntN(2) == 0})
	default:
		out = append(out, Line{Who: fresh, Do: reference.Set, Fields: d.some(fields)})
	}
	return out
}

// deletion is an owner who has the key server delete what password and sheet open, and closes the account, as the command does; with daemons killed and other devices at work in between.
func (d dice) deletion(s *Script, fields []string, sealed bool) (out []Line) {
	owner := d.one(s.Owners...)
	who := owner + "/" + d.one("1", "2")
	if d.IntN(4) > 0 {
		out = append(out, Line{Who: d.one(who, other(who)), Do: d.one(reference.Password, reference.KitPrint), Attack: "one", Again: d.IntN(3) == 0})
		if l := &out[0]; l.Do == reference.KitPrint {
			l.Attack = ""
		}
	}
	guess := Line{Who: owner, Do: reference.Guess, Attack: "one"}
	for range 1 + d.IntN(2) {
		l := Line{Who: who, Do: reference.Drop}
		switch d.IntN(4) {
		case 0:
			out = append(out, Line{Who: d.one("keys", "keys", "storefront"), Do: reference.Kill, After: d.ms(1, 60), Length: d.ms(1, 40)})
			l.With = true
		case 1:
			out = append(out, d.oneLine(guess, Line{Who: other(who), Do: reference.KitPrint, Again: true}, Line{Who: other(who), Do: reference.Password, Attack: "two"}))
			l.With = true
		}
		if d.IntN(6) == 0 {
			l.Cut = d.ms(1, 60)
		}
		out = append(out, l)
	}
	for range d.IntN(3) {
		out = append(out, d.oneLine(guess, Line{Who: other(who), Do: reference.Rescue, Attack: newest}, Line{Who: other(who), Do: reference.KitPrint, Again: true}, Line{Who: who, Do: reference.Password, Attack: "one"}))
	}
	if d.IntN(3) == 0 {
		out = append(out, Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 40), Length: d.ms(1, 60)})
		return append(out, Line{Who: who, Do: reference.Close, With: true})
	}
	return append(out, Line{Who: who, Do: reference.Close})
}

func (d dice) oneLine(list ...Line) Line { return list[d.IntN(len(list))] }
