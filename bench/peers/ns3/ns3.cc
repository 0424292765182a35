// The same flows in ns-3: reads a list of flows, sends them over a star or a dumbbell, and prints what came of each.
//
// What must be equal is made equal here, and nothing else is touched:
// - A frame takes as long as in our simulator: PPP's two bytes, and the rest of Ethernet's 14 + 24 as the gap between frames.
//   A cable is longer by that gap, for ns-3 delivers before it.
// - `limit` packets wait before a switch's port, beside the one on the wire. Marks come from RED with both thresholds at K
//   and a weight of 1, in front of a device that holds one packet more.
// - Connections exist before the first byte: they are opened in the first half second, the flows' times count from 1 s on.
//
// Output, one record a line: `flow NUMBER FCT_NS`, `depth PACKETS SAMPLES`, `count NAME VALUE`; and of senders that are traced
// `sent NS FLOW SEQ`, `acked NS FLOW ACK [ece]`, `window NS FLOW BYTES`, `threshold NS FLOW BYTES`, `phase NS FLOW NAME`.
#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/nix-vector-routing-module.h"
#include "ns3/point-to-point-module.h"
#include "ns3/traffic-control-module.h"

#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

using namespace ns3;

namespace
{

// PPP's header, which ns-3 sends, of Ethernet's header, preamble, check sequence and gap, which the wire has to carry.
constexpr double PPP_BYTES = 2;
constexpr double ETHERNET_BYTES = 14 + 24;
const Time FLOWS_BEGIN = Seconds(1);
const Time CONNECTS_SPAN = MilliSeconds(500);

struct Flow
{
    uint32_t from;
    uint32_t to;
    uint64_t bytes;
    int64_t startNs;
    uint64_t received{0};
    Ptr<Socket> sender;
    Ptr<Socket> listener;
};

std::vector<Flow> flows;
uint32_t unfinishedCount;
uint64_t hopsCount;
uint64_t dataCount;
uint64_t markedCount;
uint64_t droppedCount;
uint64_t timeoutsCount;
uint64_t samplesLeft;
std::vector<uint64_t> depths;
Ptr<QueueDisc> watchedDisc;
Ptr<Queue<Packet>> watchedQueue;

void
OnReceive(uint32_t number, Ptr<Socket> socket)
{
    Flow& flow = flows[number];
    while (Ptr<Packet> packet = socket->Recv())
    {
        if (packet->GetSize() == 0)
        {
            break;
        }
        flow.received += packet->GetSize();
    }
    if (flow.bytes != 0 && flow.received >= flow.bytes)
    {
        flow.bytes = UINT64_MAX;
        const int64_t tookNs = (Simulator::Now() - FLOWS_BEGIN).GetNanoSeconds() - flow.startNs;
        std::printf("flow %u %ld\n", number, static_cast<long>(tookNs));
        if (--unfinishedCount == 0)
        {
            Simulator::Stop();
        }
    }
}

void
OnAccept(uint32_t number, Ptr<Socket> socket, const Address&)
{
    socket->SetRecvCallback(MakeBoundCallback(&OnReceive, number));
}

void
Connect(uint32_t number, Ipv4Address to)
{
    flows[number].sender->Connect(InetSocketAddress(to, 10000 + number));
}

// An endless flow is fed as its buffer empties.
void
Feed(Ptr<Socket> socket, uint32_t room)
{
    if (room > 0)
    {
        socket->Send(Create<Packet>(room));
    }
}

void
Begin(uint32_t number)
{
    Flow& flow = flows[number];
    if (flow.bytes == 0)
    {
        flow.sender->SetSendCallback(MakeCallback(&Feed));
        Feed(flow.sender, flow.sender->GetTxAvailable());
    }
    else if (flow.sender->Send(Create<Packet>(flow.bytes)) != static_cast<int>(flow.bytes))
    {
        NS_FATAL_ERROR("flow " << number << " does not fit its buffer");
    }
}

void
Sample(Time every)
{
    uint32_t waiting = watchedQueue->GetNPackets() + (watchedDisc ? watchedDisc->GetNPackets() : 0);
    depths.resize(std::max<std::size_t>(depths.size(), waiting + 1));
    depths[waiting]++;
    if (--samplesLeft > 0)
    {
        Simulator::Schedule(every, &Sample, every);
    }
}

// A time-out is when a sender's congestion state becomes CA_LOSS; one after another in that state shows as its window of one
// segment again, and is not seen here.
void
OnState(TcpSocketState::TcpCongState_t before, TcpSocketState::TcpCongState_t now)
{
    timeoutsCount += now == TcpSocketState::CA_LOSS && before != TcpSocketState::CA_LOSS;
}

int64_t
NowNs()
{
    return (Simulator::Now() - FLOWS_BEGIN).GetNanoSeconds();
}

void
OnSent(uint32_t number, Ptr<const Packet> packet, const TcpHeader& header, Ptr<const TcpSocketBase>)
{
    if (packet->GetSize() > 0)
    {
        std::printf("sent %ld %u %u\n", long{NowNs()}, number, header.GetSequenceNumber().GetValue() - 1);
    }
}

void
OnAck(uint32_t number, Ptr<const Packet>, const TcpHeader& header, Ptr<const TcpSocketBase>)
{
    std::printf("acked %ld %u %u%s\n",
                long{NowNs()},
                number,
                header.GetAckNumber().GetValue() - 1,
                (header.GetFlags() & TcpHeader::ECE) != 0 ? " ece" : "");
}

void
OnWindow(uint32_t number, uint32_t, uint32_t now)
{
    std::printf("window %ld %u %u\n", long{NowNs()}, number, now);
}

void
OnThreshold(uint32_t number, uint32_t, uint32_t now)
{
    std::printf("threshold %ld %u %u\n", long{NowNs()}, number, now);
}

void
OnPhase(uint32_t number, TcpSocketState::TcpCongState_t, TcpSocketState::TcpCongState_t now)
{
    std::printf("phase %ld %u %s\n", long{NowNs()}, number, TcpSocketState::TcpCongStateName[now]);
}

double
CpuSeconds()
{
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

} // namespace

int
main(int argc, char* argv[])
{
    Time::SetResolution(Time::PS);
    std::string flowsPath;
    std::string controller = "newreno";
    std::string recovery = "classic";
    uint32_t left = 0;
    uint32_t hosts = 2;
    uint64_t rate = 10'000'000'000;
    uint64_t coreRate = 10'000'000'000;
    std::string delaysNs;
    Time coreDelay = MicroSeconds(5);
    uint32_t limit = 100;
    uint32_t markAt = 0;
    uint32_t mss = 1448;
    uint32_t initialWindow = 10;
    uint32_t ackEvery = 1;
    Time ackDelay = MilliSeconds(40);
    Time rtoMin = MilliSeconds(200);
    bool sack = true;
    Time horizon = Seconds(60);
    Time sampleEvery = Time(0);
    Time sampleFrom = Time(0);
    uint64_t samples = 20'000;
    bool trace = false;

    CommandLine cmd(__FILE__);
    cmd.AddValue("flows", "the list of flows: from,to,bytes,start_ns a line; 0 bytes are without end", flowsPath);
    cmd.AddValue("controller", "newreno, linux-reno or dctcp", controller);
    cmd.AddValue("recovery", "classic or prr", recovery);
    cmd.AddValue("left", "hosts on the left of a dumbbell; 0: a star", left);
    cmd.AddValue("hosts", "hosts", hosts);
    cmd.AddValue("rate", "of hosts' cables, bit/s", rate);
    cmd.AddValue("coreRate", "of a dumbbell's bar, or of the receiver's cable on a star, bit/s", coreRate);
    cmd.AddValue("delays", "of each host's cable, in ns, with commas", delaysNs);
    cmd.AddValue("coreDelay", "of a dumbbell's bar", coreDelay);
    cmd.AddValue("limit", "packets that wait before a switch's port", limit);
    cmd.AddValue("markAt", "more waiting packets than that mark; 0: none do", markAt);
    cmd.AddValue("mss", "payload of a segment", mss);
    cmd.AddValue("initialWindow", "segments", initialWindow);
    cmd.AddValue("ackEvery", "segments per acknowledgement", ackEvery);
    cmd.AddValue("ackDelay", "an acknowledgement waits no longer", ackDelay);
    cmd.AddValue("rtoMin", "least retransmission time-out", rtoMin);
    cmd.AddValue("sack", "selective acknowledgements", sack);
    cmd.AddValue("horizon", "of the flows' time", horizon);
    cmd.AddValue("sampleEvery", "between looks at the queue; 0: none", sampleEvery);
    cmd.AddValue("sampleFrom", "the first look, in the flows' time", sampleFrom);
    cmd.AddValue("samples", "no more looks than that", samples);
    cmd.AddValue("trace", "print what senders send, hear and decide", trace);
    cmd.Parse(argc, argv);
    samplesLeft = samples;

    std::vector<Time> delays;
    std::istringstream words(delaysNs);
    for (std::string word; std::getline(words, word, ',');)
    {
        delays.push_back(NanoSeconds(std::stoull(word)));
    }
    if (delays.size() != hosts)
    {
        std::cerr << delays.size() << " delays of " << hosts << " hosts\n";
        return 1;
    }

    // An endless flow must never wait for its buffer: without SACK what duplicate acks let leave may be many windows.
    uint64_t bytesMax = 1 << 26;
    std::ifstream list(flowsPath);
    for (std::string line; std::getline(list, line);)
    {
        Flow flow;
        char comma;
        std::istringstream fields(line);
        if (!(fields >> flow.from >> comma >> flow.to >> comma >> flow.bytes >> comma >> flow.startNs))
        {
            std::cerr << flowsPath << ": not a flow: " << line << "\n";
            return 1;
        }
        if (flow.from >= hosts || flow.to >= hosts || flow.from == flow.to)
        {
            std::cerr << flowsPath << ": no such pair of hosts: " << line << "\n";
            return 1;
        }
        bytesMax = std::max(bytesMax, flow.bytes);
        unfinishedCount += flow.bytes > 0;
        flows.push_back(flow);
    }
    if (flows.empty())
    {
        std::cerr << flowsPath << ": no flows\n";
        return 1;
    }

    const std::string type = controller == "dctcp"        ? "ns3::TcpDctcp"
                             : controller == "linux-reno" ? "ns3::TcpLinuxReno"
                                                          : "ns3::TcpNewReno";
    Config::SetDefault("ns3::TcpL4Protocol::SocketType", TypeIdValue(TypeId::LookupByName(type)));
    Config::SetDefault("ns3::TcpL4Protocol::RecoveryType",
                       TypeIdValue(recovery == "prr" ? TcpPrrRecovery::GetTypeId()
                                                     : TcpClassicRecovery::GetTypeId()));
    Config::SetDefault("ns3::TcpSocket::SegmentSize", UintegerValue(mss));
    Config::SetDefault("ns3::TcpSocket::InitialCwnd", UintegerValue(initialWindow));
    Config::SetDefault("ns3::TcpSocket::DelAckCount", UintegerValue(ackEvery));
    Config::SetDefault("ns3::TcpSocket::DelAckTimeout", TimeValue(ackDelay));
    Config::SetDefault("ns3::TcpSocket::SndBufSize", UintegerValue(bytesMax));
    Config::SetDefault("ns3::TcpSocket::RcvBufSize", UintegerValue(1 << 26));
    Config::SetDefault("ns3::TcpSocket::DataRetries", UintegerValue(1 << 20));
    Config::SetDefault("ns3::TcpSocketBase::Sack", BooleanValue(sack));
    Config::SetDefault("ns3::TcpSocketBase::MinRto", TimeValue(rtoMin));
    Config::SetDefault("ns3::TcpSocketBase::ClockGranularity", TimeValue(NanoSeconds(1)));
    Config::SetDefault("ns3::TcpSocketBase::UseEcn",
                       EnumValue(controller == "dctcp" ? TcpSocketState::On : TcpSocketState::Off));

    const uint32_t switches = left > 0 ? 2 : 1;
    NodeContainer hostNodes(hosts);
    NodeContainer switchNodes(switches);
    InternetStackHelper stack;
    stack.SetIpv6StackInstall(false);
    Ipv4NixVectorHelper nix;
    stack.SetRoutingHelper(nix);
    stack.InstallAll();

    Ipv4AddressHelper addresses;
    addresses.SetBase("10.0.0.0", "255.255.255.252");
    std::vector<Ipv4Address> hostAddresses;
    // Joins two nodes; `isSwitch` says which of them is a switch, and so has a short queue.
    auto join = [&](Ptr<Node> a, Ptr<Node> b, bool isSwitchA, uint64_t bitsPerSec, Time length) {
        const double gapS = (ETHERNET_BYTES - PPP_BYTES) * 8 / static_cast<double>(bitsPerSec);
        PointToPointHelper cable;
        cable.SetDeviceAttribute("DataRate", DataRateValue(DataRate(bitsPerSec)));
        cable.SetDeviceAttribute("InterframeGap", TimeValue(Seconds(gapS)));
        cable.SetDeviceAttribute("Mtu", UintegerValue(1500));
        cable.SetChannelAttribute("Delay", TimeValue(length + Seconds(gapS)));
        cable.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", StringValue("1000000p"));
        NetDeviceContainer devices = cable.Install(a, b);
        Ipv4InterfaceContainer interfaces = addresses.Assign(devices);
        addresses.NewNetwork();
        TrafficControlHelper none;
        none.Uninstall(devices);
        for (uint32_t end = 0; end < 2; end++)
        {
            auto device = DynamicCast<PointToPointNetDevice>(devices.Get(end));
            device->TraceConnectWithoutContext("PhyTxBegin", Callback<void, Ptr<const Packet>>([](auto packet) {
                                                   hopsCount++;
                                                   dataCount += packet->GetSize() > 1000;
                                               }));
            if (end == 0 && !isSwitchA)
            {
                continue;
            }
            auto queue = device->GetQueue();
            if (markAt == 0)
            {
                queue->SetMaxSize(QueueSize(QueueSizeUnit::PACKETS, limit));
                continue;
            }
            queue->SetMaxSize(QueueSize("1p"));
            TrafficControlHelper red;
            red.SetRootQueueDisc("ns3::RedQueueDisc",
                                 "MaxSize",
                                 QueueSizeValue(QueueSize(QueueSizeUnit::PACKETS, limit - 1)),
                                 "MinTh",
                                 DoubleValue(markAt),
                                 "MaxTh",
                                 DoubleValue(markAt),
                                 "QW",
                                 DoubleValue(1),
                                 "Gentle",
                                 BooleanValue(false),
                                 "UseEcn",
                                 BooleanValue(true),
                                 "UseHardDrop",
                                 BooleanValue(false),
                                 "MeanPktSize",
                                 UintegerValue(1500),
                                 "LinkBandwidth",
                                 DataRateValue(DataRate(bitsPerSec)),
                                 "LinkDelay",
                                 TimeValue(length));
            Ptr<QueueDisc> disc = red.Install(device).Get(0);
            disc->TraceConnectWithoutContext(
                "Drop",
                Callback<void, Ptr<const QueueDiscItem>>([](auto) { droppedCount++; }));
            disc->TraceConnectWithoutContext(
                "Mark",
                Callback<void, Ptr<const QueueDiscItem>, const char*>([](auto, auto) { markedCount++; }));
        }
        return std::make_pair(devices, interfaces);
    };
    // A device without a queueing discipline of its own that is full is not even asked: the layer above it drops.
    for (uint32_t number = 0; number < switches; number++)
    {
        switchNodes.Get(number)->GetObject<TrafficControlLayer>()->TraceConnectWithoutContext(
            "TcDrop",
            Callback<void, Ptr<const Packet>>([](auto) { droppedCount++; }));
    }
    auto watch = [&](Ptr<NetDevice> device) {
        watchedQueue = DynamicCast<PointToPointNetDevice>(device)->GetQueue();
        watchedDisc = device->GetNode()->GetObject<TrafficControlLayer>()->GetRootQueueDiscOnDevice(device);
    };
    for (uint32_t host = 0; host < hosts; host++)
    {
        Ptr<Node> to = switchNodes.Get(left > 0 && host >= left ? 1 : 0);
        const bool isReceiver = left == 0 && host == flows[0].to;
        auto [devices, interfaces] = join(hostNodes.Get(host), to, false, isReceiver ? coreRate : rate, delays[host]);
        hostAddresses.push_back(interfaces.GetAddress(0));
        if (isReceiver)
        {
            watch(devices.Get(1));
        }
    }
    if (left > 0)
    {
        auto [devices, interfaces] = join(switchNodes.Get(0), switchNodes.Get(1), true, coreRate, coreDelay);
        watch(devices.Get(0));
    }

    for (uint32_t number = 0; number < flows.size(); number++)
    {
        Flow& flow = flows[number];
        flow.listener = Socket::CreateSocket(hostNodes.Get(flow.to), TcpSocketFactory::GetTypeId());
        flow.listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), 10000 + number));
        flow.listener->Listen();
        flow.listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                         MakeBoundCallback(&OnAccept, number));
        flow.sender = Socket::CreateSocket(hostNodes.Get(flow.from), TcpSocketFactory::GetTypeId());
        flow.sender->Bind();
        flow.sender->TraceConnectWithoutContext("CongState", MakeCallback(&OnState));
        if (trace)
        {
            flow.sender->TraceConnectWithoutContext("Tx", MakeBoundCallback(&OnSent, number));
            flow.sender->TraceConnectWithoutContext("Rx", MakeBoundCallback(&OnAck, number));
            flow.sender->TraceConnectWithoutContext("CongestionWindow", MakeBoundCallback(&OnWindow, number));
            flow.sender->TraceConnectWithoutContext("SlowStartThreshold",
                                                    MakeBoundCallback(&OnThreshold, number));
            flow.sender->TraceConnectWithoutContext("CongState", MakeBoundCallback(&OnPhase, number));
        }
        Simulator::Schedule(CONNECTS_SPAN * number / flows.size(), &Connect, number, hostAddresses[flow.to]);
        Simulator::Schedule(FLOWS_BEGIN + NanoSeconds(flow.startNs), &Begin, number);
    }
    if (sampleEvery.IsStrictlyPositive())
    {
        Simulator::Schedule(FLOWS_BEGIN + sampleFrom, &Sample, sampleEvery);
    }
    // What opening the connections cost is not counted.
    Simulator::Stop(FLOWS_BEGIN);
    Simulator::Run();
    const uint64_t eventsBefore = Simulator::GetEventCount();
    hopsCount = dataCount = droppedCount = markedCount = 0;
    const double cpuBefore = CpuSeconds();
    Simulator::Stop(horizon);
    Simulator::Run();
    const double cpuS = CpuSeconds() - cpuBefore;

    for (std::size_t packets = 0; packets < depths.size(); packets++)
    {
        if (depths[packets] > 0)
        {
            std::printf("depth %zu %lu\n", packets, depths[packets]);
        }
    }
    if (flows[0].bytes == 0)
    {
        for (uint32_t number = 0; number < flows.size(); number++)
        {
            std::printf("received %u %lu\n", number, flows[number].received);
        }
    }
    std::printf("count events %lu\n", Simulator::GetEventCount() - eventsBefore);
    std::printf("count hops %lu\n", hopsCount);
    std::printf("count data_hops %lu\n", dataCount);
    std::printf("count dropped %lu\n", droppedCount);
    std::printf("count marked %lu\n", markedCount);
    std::printf("count timeouts %lu\n", timeoutsCount);
    std::printf("count unfinished %u\n", unfinishedCount);
    std::printf("count ended_ns %ld\n", static_cast<long>((Simulator::Now() - FLOWS_BEGIN).GetNanoSeconds()));
    std::printf("cpu_s %.6f\n", cpuS);
    std::fflush(stdout);
    // ns-3's own tidying takes longer than some runs.
    _Exit(0);
}
