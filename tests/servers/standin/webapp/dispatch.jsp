<%@page trimDirectiveWhitespaces="true" contentType="text/plain" import="java.io.*,java.net.*,java.nio.file.*"%><%@taglib prefix="s" uri="urn:standin"%><%
// Hands the path to the stand-in of the BES; `/java` describes this process.
if (!request.getMethod().equals("GET")) {
    response.sendError(405); // as the OLFS does
    return;
}
String path = request.getPathInfo();
if (path == null) path = request.getRequestURI().substring(request.getContextPath().length());
if (path.startsWith("/hyrax/")) path = path.substring(6);
if (path.equals("/java")) {
    %><s:greet/><%
    out.println();
    out.println("user " + System.getProperty("user.name"));
    out.println("heap " + Runtime.getRuntime().maxMemory() / 1048576);
    out.println("url " + request.getRequestURL());
    out.println("client " + request.getRemoteAddr());
    out.println("level " + config.getInitParameter("logLevel"));
    String home = System.getProperty("catalina.home");
    for (String name : new String[] {"logs", "work", "temp", "conf", "webapps/opendap/WEB-INF/conf/cache"})
        out.println("write " + name + " " + Files.isWritable(Paths.get(home, name)));
    out.println("olfs " + new String(Files.readAllBytes(Paths.get(
        application.getRealPath("/WEB-INF/conf/olfs.xml")))).contains("<NodeCache"));
    return;
}
try (Socket socket = new Socket("localhost", 10022)) {
    socket.getOutputStream().write((path + "\n").getBytes("UTF-8"));
    InputStream in = socket.getInputStream();
    ByteArrayOutputStream head = new ByteArrayOutputStream();
    for (int c = in.read(); c >= 0 && c != '\n'; c = in.read()) head.write(c);
    response.setStatus(Integer.parseInt(head.toString()));
    out.write(new String(in.readAllBytes(), "ISO-8859-1"));
} catch (IOException error) {
    response.setStatus(503);
    out.println(error);
}
%>
